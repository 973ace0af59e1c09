package headscaletest

import (
	"context"
	"errors"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// grpcTransport is the admin API of Headscale up to 0.29.
type grpcTransport struct{ *grpc.Server }

func newGRPCTransport(s *Server, release Release) grpcTransport {
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	v1.RegisterHeadscaleServiceServer(server, &grpcService{server: s, release: release})
	return grpcTransport{server}
}

func (t grpcTransport) Cut() { t.Stop() }

// grpcService answers like Headscale's service: what its database says comes out with
// the code Unknown.
type grpcService struct {
	v1.UnimplementedHeadscaleServiceServer
	server  *Server
	release Release
}

func (g *grpcService) ListApiKeys(ctx context.Context, _ *v1.ListApiKeysRequest) (*v1.ListApiKeysResponse, error) {
	answer := &v1.ListApiKeysResponse{}
	err := g.server.perform(List, func(database *Database) error {
		for _, key := range database.Keys() {
			answer.ApiKeys = append(answer.ApiKeys, &v1.ApiKey{
				Id:         key.ID,
				Prefix:     listedPrefix(g.release, key.Prefix),
				Expiration: stamp(key.Expiration),
				CreatedAt:  timestamppb.New(key.CreatedAt),
			})
		}
		return nil
	})
	return answer, g.fail(ctx, err)
}

// CreateApiKey stores the zero time where no expiration is given, as Headscale does.
func (g *grpcService) CreateApiKey(ctx context.Context, request *v1.CreateApiKeyRequest) (*v1.CreateApiKeyResponse, error) {
	var expiration time.Time
	if request.GetExpiration() != nil {
		expiration = request.GetExpiration().AsTime()
	}
	answer := &v1.CreateApiKeyResponse{}
	err := g.server.perform(Create, func(database *Database) error {
		answer.ApiKey = g.server.mint(database, expiration)
		return nil
	})
	return answer, g.fail(ctx, err)
}

func (g *grpcService) ExpireApiKey(ctx context.Context, request *v1.ExpireApiKeyRequest) (*v1.ExpireApiKeyResponse, error) {
	id, prefix := request.GetId(), request.GetPrefix()
	if g.release == V027 {
		id = 0 // a field that it does not know
	} else if (id == 0) == (prefix == "") {
		return nil, status.Error(codes.InvalidArgument, "give either an id or a prefix")
	}
	err := g.server.perform(Expire, func(database *Database) error {
		return g.server.expire(database, id, prefix)
	})
	return &v1.ExpireApiKeyResponse{}, g.fail(ctx, err)
}

// fail cuts the connection of the call where it is asked to.
func (g *grpcService) fail(ctx context.Context, err error) error {
	if !errors.Is(err, errCut) {
		return err
	}
	if caller, ok := peer.FromContext(ctx); ok {
		if addr, ok := caller.Addr.(trackedAddr); ok {
			_ = addr.conn.Close()
		}
	}
	return status.Error(codes.Unavailable, err.Error()) // into a closed connection
}

func stamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}
