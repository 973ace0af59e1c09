package headscale

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// recordNotFound is what Headscale's database says of what it does not have.
// Headscale up to 0.29 returns it with the code Unknown.
const recordNotFound = "record not found"

// grpcConn is a connection to the admin API over gRPC.
type grpcConn struct {
	conn *grpc.ClientConn
	stub v1.HeadscaleServiceClient
}

// newGRPCConn prepares a connection that is made when it is first used. gRPC's target
// names nothing: the dialer knows where to connect, so there is no URL to read, no name
// to resolve and no proxy to ask.
func newGRPCConn(dial Dialer) (*grpcConn, error) {
	conn, err := grpc.NewClient("passthrough:///headscale",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithUserAgent(userAgent),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(answerLimit)),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing a gRPC connection: %w", err)
	}
	return &grpcConn{conn: conn, stub: v1.NewHeadscaleServiceClient(conn)}, nil
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

// saysNotFound reports whether an error says that Headscale does not have what it was
// asked about.
func saysNotFound(err error) bool {
	answered := status.Convert(err)
	unknown := answered.Code() == codes.Unknown && strings.Contains(answered.Message(), recordNotFound)
	return unknown || answered.Code() == codes.NotFound
}

// grpcError tells an error that Headscale answered with from a connection that
// failed. Canceled is of the second kind: Headscale does not cancel.
func grpcError(err error) error {
	answered := status.Convert(err)
	switch answered.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return unavailable(answered.Message())
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
