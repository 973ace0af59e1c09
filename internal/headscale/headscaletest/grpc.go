package headscaletest

import (
	"context"
	"errors"
	"net"
	"path"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// methods names the operations by their gRPC methods.
var methods = map[string]Operation{
	"ListApiKeys": List, "CreateApiKey": Create, "ExpireApiKey": Expire,
	"ListUsers": ListUsers, "CreateUser": CreateUser, "RenameUser": RenameUser, "DeleteUser": DeleteUser,
	"ListNodes": ListNodes, "SetApprovedRoutes": ApproveRoutes, "ExpireNode": ExpireNode, "DeleteNode": DeleteNode,
	"ListPreAuthKeys": ListPreAuthKeys, "CreatePreAuthKey": CreatePreAuthKey,
	"ExpirePreAuthKey": ExpirePreAuthKey, "DeletePreAuthKey": DeletePreAuthKey,
	"GetPolicy": GetPolicy, "SetPolicy": SetPolicy,
}

// NewGRPCServer returns a server of Headscale's gRPC service, for a Trackable listener.
// It performs each call by the function, such as Faults.Strike does. Like Headscale it
// goes on with a call when the caller has hung up.
func NewGRPCServer(service v1.HeadscaleServiceServer, perform func(Operation, func() error) error) *grpc.Server {
	intercept := func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
		err = perform(methods[path.Base(info.FullMethod)], func() (err error) {
			answer, err = handle(context.WithoutCancel(ctx), request)
			return err
		})
		if !errors.Is(err, errCut) {
			return answer, err
		}
		if caller, ok := peer.FromContext(ctx); ok {
			if conn, ok := caller.Addr.(tracked); ok {
				_ = conn.Close()
			}
		}
		return nil, status.Error(codes.Unavailable, err.Error()) // into a closed connection
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true), grpc.UnaryInterceptor(intercept))
	v1.RegisterHeadscaleServiceServer(server, service)
	return server
}

// Trackable is a listener whose connections are found by their address, which gRPC hands
// to handlers. All clients of a Unix socket have the same address otherwise.
type Trackable struct{ net.Listener }

// Accept is that of net.Listener.
func (t Trackable) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	return tracked{conn}, err
}

// tracked is a connection that is its own address.
type tracked struct{ net.Conn }

func (t tracked) RemoteAddr() net.Addr { return t }
func (tracked) Network() string        { return "unix" }
func (tracked) String() string         { return "@" }

// grpcService is the admin API of Headscale up to 0.29. What its database says comes out
// with the code Unknown.
type grpcService struct {
	v1.UnimplementedHeadscaleServiceServer
	server  *Server
	release Release
}

func (g *grpcService) ListApiKeys(context.Context, *v1.ListApiKeysRequest) (*v1.ListApiKeysResponse, error) {
	answer := &v1.ListApiKeysResponse{}
	for _, key := range g.server.Database().Keys() {
		listed := &v1.ApiKey{Id: key.ID, Prefix: listedPrefix(g.release, key.Prefix), CreatedAt: timestamppb.New(key.CreatedAt)}
		if key.Expiration != nil {
			listed.Expiration = timestamppb.New(*key.Expiration)
		}
		answer.ApiKeys = append(answer.ApiKeys, listed)
	}
	return answer, nil
}

// CreateApiKey stores the zero time where no expiration is given, as Headscale does.
func (g *grpcService) CreateApiKey(_ context.Context, request *v1.CreateApiKeyRequest) (*v1.CreateApiKeyResponse, error) {
	var expiration time.Time
	if request.GetExpiration() != nil {
		expiration = request.GetExpiration().AsTime()
	}
	return &v1.CreateApiKeyResponse{ApiKey: g.server.createKey(expiration)}, nil
}

func (g *grpcService) ExpireApiKey(_ context.Context, request *v1.ExpireApiKeyRequest) (*v1.ExpireApiKeyResponse, error) {
	id, prefix := request.GetId(), request.GetPrefix()
	if g.release < V028 {
		id = 0 // a field that it does not know
	} else if (id == 0) == (prefix == "") {
		return nil, status.Error(codes.InvalidArgument, "give either an id or a prefix")
	}
	return &v1.ExpireApiKeyResponse{}, g.server.expire(id, prefix)
}
