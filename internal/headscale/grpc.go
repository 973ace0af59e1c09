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

// recordNotFound is what Headscale's database says of a prefix that it does not
// have. Headscale up to 0.29 hands it on with the code Unknown.
const recordNotFound = "record not found"

// grpcAPI is the admin API over gRPC.
type grpcAPI struct {
	conn *grpc.ClientConn
	stub v1.HeadscaleServiceClient
}

// newGRPCAPI prepares a connection that is made when it is first used. The path does
// not pass through gRPC's target, which would read it as a URL; there is nothing to
// resolve and no proxy to ask.
func newGRPCAPI(path string) (*grpcAPI, error) {
	conn, err := grpc.NewClient("passthrough:///headscale",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return dialSocket(ctx, path)
		}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithUserAgent(userAgent),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(listLimit)),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing a gRPC connection: %w", err)
	}
	return &grpcAPI{conn: conn, stub: v1.NewHeadscaleServiceClient(conn)}, nil
}

func (g *grpcAPI) list(ctx context.Context) ([]APIKey, error) {
	answer, err := g.stub.ListApiKeys(untold{ctx}, &v1.ListApiKeysRequest{})
	if err != nil {
		return nil, grpcError(err)
	}
	keys := make([]APIKey, 0, len(answer.GetApiKeys()))
	for _, listed := range answer.GetApiKeys() {
		keys = append(keys, newAPIKey(listed.GetId(), listed.GetPrefix(),
			timeOf(listed.GetExpiration()), timeOf(listed.GetCreatedAt())))
	}
	return keys, nil
}

func (g *grpcAPI) create(ctx context.Context, expiration time.Time) (string, error) {
	answer, err := g.stub.CreateApiKey(untold{ctx}, &v1.CreateApiKeyRequest{Expiration: timestamppb.New(expiration)})
	if err != nil {
		return "", grpcError(err)
	}
	return answer.GetApiKey(), nil
}

// expire names the key by its prefix, which every release takes; only 0.28 and 0.29
// take an id as well.
func (g *grpcAPI) expire(ctx context.Context, prefix string) error {
	_, err := g.stub.ExpireApiKey(untold{ctx}, &v1.ExpireApiKeyRequest{Prefix: prefix})
	if err == nil {
		return nil
	}
	answered := status.Convert(err)
	unknown := answered.Code() == codes.Unknown && strings.Contains(answered.Message(), recordNotFound)
	if unknown || answered.Code() == codes.NotFound {
		return ErrNotFound
	}
	return grpcError(err)
}

// untold is a context whose deadline gRPC does not tell the server. A server that
// knows it ends the call at about the same moment as we do, and then it were left to
// chance whether the error says that it was the time.
type untold struct{ context.Context }

// Deadline says that there is none.
func (untold) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

func (g *grpcAPI) close() {
	_ = g.conn.Close() // says only that it was closed before
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
