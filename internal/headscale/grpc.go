package headscale

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// grpcConn is a connection to the admin API over gRPC.
type grpcConn struct {
	conn  *grpc.ClientConn
	stub  v1.HeadscaleServiceClient
	codec *boundedCodec
}

// newGRPCConn prepares a connection that is made when it is first used. gRPC's target
// names nothing: the dialer knows where to connect, so there is no URL to read, no name
// to resolve and no proxy to ask.
func newGRPCConn(dial Dialer) (*grpcConn, error) {
	codec := &boundedCodec{CodecV2: encoding.GetCodecV2(protocodec.Name)}
	conn, err := grpc.NewClient("passthrough:///headscale",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithUserAgent(userAgent),
		grpc.WithMaxHeaderListSize(headerLimit),
		grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
		grpc.WithStaticStreamWindowSize(windowSize), grpc.WithStaticConnWindowSize(windowSize),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(answerLimit),
			grpc.ForceCodecV2(codec),
		),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing a gRPC connection: %w", err)
	}
	return &grpcConn{conn: conn, stub: v1.NewHeadscaleServiceClient(conn), codec: codec}, nil
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

// failure is grpcError, but for an answer that could not be decoded here.
func (g *grpcConn) failure(err error) error {
	if g.codec.failed != nil {
		return g.codec.failed
	}
	return grpcError(err)
}

// grpcError tells an error that Headscale answered with from a connection that
// failed. Canceled is of the second kind: Headscale does not cancel. ResourceExhausted is
// what gRPC itself says of an answer that is too long, and Headscale never. Where there was no
// answer, gRPC may quote what came instead of one.
func grpcError(err error) error {
	answered := status.Convert(err)
	switch answered.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return unavailable("the call ended with code " + answered.Code().String())
	case codes.ResourceExhausted:
		return errTooLong
	default:
		return errors.New(foreignText(
			fmt.Sprintf("Headscale refused with code %s: %s", answered.Code(), answered.Message())))
	}
}

func timeOf(stamp *timestamppb.Timestamp) *time.Time {
	if stamp == nil {
		return nil
	}
	t := stamp.AsTime()
	return &t
}
