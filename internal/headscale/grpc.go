package headscale

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// grpcConn is a connection to the admin API over gRPC, for one call at a time.
type grpcConn struct {
	conn  *grpc.ClientConn
	stub  v1.HeadscaleServiceClient
	codec *boundedCodec
	token Key // may be none
	limit int // of the answer of the call, in bytes
}

// newGRPCConn prepares a connection that is made when it is first used. gRPC's target
// names nothing: the dialer knows where to connect, so there is no URL to read, no name
// to resolve and no proxy to ask.
func newGRPCConn(dial Dialer, token Key) (*grpcConn, error) {
	g := &grpcConn{codec: &boundedCodec{CodecV2: encoding.GetCodecV2(protocodec.Name)}, token: token}
	conn, err := grpc.NewClient("passthrough:///headscale",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the dialer's business
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithUserAgent(userAgent),
		grpc.WithMaxHeaderListSize(headerLimit),
		grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
		grpc.WithStaticStreamWindowSize(windowSize), grpc.WithStaticConnWindowSize(windowSize),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(g.codec)),
		grpc.WithUnaryInterceptor(g.intercept),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing a gRPC connection: %w", err)
	}
	g.conn, g.stub = conn, v1.NewHeadscaleServiceClient(conn)
	return g, nil
}

// intercept bounds an answer, and adds the token to a request.
func (g *grpcConn) intercept(ctx context.Context, method string, request, answer any,
	conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	g.codec.failed = nil
	if !g.token.IsZero() {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", bearer(g.token))
	}
	return invoke(ctx, method, request, answer, conn, append(options, grpc.MaxCallRecvMsgSize(g.limit))...)
}

// withoutDeadline is a context whose deadline gRPC does not tell the server. A server that
// knows it ends the call at about the same moment as we do, and then it were left to
// chance whether the error says that it was the time.
type withoutDeadline struct{ context.Context }

// Deadline says that there is none.
func (withoutDeadline) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

func (g *grpcConn) close() {
	_ = g.conn.Close() // says only that it was closed before
}

// failure is refusal, but for an answer that could not be decoded here.
func (g *grpcConn) failure(err error) error {
	if g.codec.failed != nil {
		return g.codec.failed
	}
	return g.refusal(err)
}

// refusal distinguishes an error that Headscale answered with from a connection that
// failed. Canceled is of the second kind: Headscale does not cancel. ResourceExhausted is
// what gRPC itself says of an answer that is too long, and Headscale never. Where there was no
// answer, gRPC may quote what came instead of one. Unauthenticated stands for the status 401
// of the admin endpoint, and Unimplemented for a method that Headscale lacks.
func (g *grpcConn) refusal(err error) error {
	answered := status.Convert(err)
	code := answered.Code()
	if code == codes.Internal && slices.ContainsFunc(brokenStreams, func(words string) bool { return strings.HasPrefix(answered.Message(), words) }) {
		code = codes.Unavailable
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return unavailable("the call ended with code " + answered.Code().String())
	case codes.ResourceExhausted:
		return tooLongError(g.limit)
	default:
		return &Refusal{
			Words: refusalWords(answered.Message()), status: "code " + answered.Code().String(), kind: codeKinds[answered.Code()],
		}
	}
}

// brokenStreams begin what gRPC itself says, with the code Internal, of an answer that broke off:
// the admin endpoint ends it so when Headscale behind it goes away.
var brokenStreams = []string{"stream terminated by RST_STREAM", "server closed the stream without sending trailers"}

// codeKinds are the codes that say what a refusal means.
var codeKinds = map[codes.Code]error{codes.Unauthenticated: ErrUnauthorized, codes.Unimplemented: ErrUnsupported}

// timeOf returns a time of a message, or nil.
func timeOf(stamp *timestamppb.Timestamp) *time.Time {
	if stamp == nil {
		return nil
	}
	t := stamp.AsTime()
	return &t
}
