package preauthkeys_test

import (
	"context"
	"net"
	"sync"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// socket stands before a Headscale's socket, passes all calls on that the operator makes, and does
// to them what faults say.
type socket struct {
	headscaletest.Faults
	v1.UnimplementedHeadscaleServiceServer
	path     string
	server   *grpc.Server
	upstream *grpc.ClientConn
	stub     v1.HeadscaleServiceClient

	lock sync.Mutex
	// made is how many pre-auth keys each user was given.
	made map[uint64]int
}

// madeFor is how many pre-auth keys a user was given by way of the socket.
func (s *socket) madeFor(user uint64) int {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.made[user]
}

// startSocket listens at a path, before another one.
func startSocket(path, upstream string) (*socket, error) {
	conn, err := grpc.NewClient("unix:"+upstream, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := &socket{path: path, upstream: conn, stub: v1.NewHeadscaleServiceClient(conn), made: map[uint64]int{}}
	s.server = headscaletest.NewGRPCServer(s, func(operation headscaletest.Operation, work func() error) error {
		return s.Strike(operation, func(time.Duration) bool { return true }, work) // no fault here has a delay
	})
	go func() { _ = s.server.Serve(headscaletest.Trackable{Listener: listener}) }() // ends with stop
	return s, nil
}

func (s *socket) stop() {
	_ = s.upstream.Close()
	s.server.Stop()
}

func (s *socket) ListApiKeys(ctx context.Context, request *v1.ListApiKeysRequest) (*v1.ListApiKeysResponse, error) {
	return s.stub.ListApiKeys(ctx, request)
}

func (s *socket) CreateApiKey(ctx context.Context, request *v1.CreateApiKeyRequest) (*v1.CreateApiKeyResponse, error) {
	return s.stub.CreateApiKey(ctx, request)
}

func (s *socket) ExpireApiKey(ctx context.Context, request *v1.ExpireApiKeyRequest) (*v1.ExpireApiKeyResponse, error) {
	return s.stub.ExpireApiKey(ctx, request)
}

func (s *socket) ListUsers(ctx context.Context, request *v1.ListUsersRequest) (*v1.ListUsersResponse, error) {
	return s.stub.ListUsers(ctx, request)
}

func (s *socket) CreateUser(ctx context.Context, request *v1.CreateUserRequest) (*v1.CreateUserResponse, error) {
	return s.stub.CreateUser(ctx, request)
}

func (s *socket) DeleteUser(ctx context.Context, request *v1.DeleteUserRequest) (*v1.DeleteUserResponse, error) {
	return s.stub.DeleteUser(ctx, request)
}

func (s *socket) ListNodes(ctx context.Context, request *v1.ListNodesRequest) (*v1.ListNodesResponse, error) {
	return s.stub.ListNodes(ctx, request)
}

func (s *socket) GetPolicy(ctx context.Context, request *v1.GetPolicyRequest) (*v1.GetPolicyResponse, error) {
	return s.stub.GetPolicy(ctx, request)
}

func (s *socket) SetPolicy(ctx context.Context, request *v1.SetPolicyRequest) (*v1.SetPolicyResponse, error) {
	return s.stub.SetPolicy(ctx, request)
}

func (s *socket) ListPreAuthKeys(ctx context.Context, request *v1.ListPreAuthKeysRequest) (*v1.ListPreAuthKeysResponse, error) {
	return s.stub.ListPreAuthKeys(ctx, request)
}

// patience is somewhat less than what an operator waits for an answer. A key that is made later does not
// count: nobody learns of it but by a list, and another one is asked for.
const patience = 4 * time.Second

func (s *socket) CreatePreAuthKey(ctx context.Context, request *v1.CreatePreAuthKeyRequest) (*v1.CreatePreAuthKeyResponse, error) {
	began := time.Now()
	made, err := s.stub.CreatePreAuthKey(ctx, request)
	if err == nil && time.Since(began) < patience {
		s.lock.Lock()
		defer s.lock.Unlock()
		s.made[request.GetUser()]++
	}
	return made, err
}

func (s *socket) ExpirePreAuthKey(ctx context.Context, request *v1.ExpirePreAuthKeyRequest) (*v1.ExpirePreAuthKeyResponse, error) {
	return s.stub.ExpirePreAuthKey(ctx, request)
}

func (s *socket) DeletePreAuthKey(ctx context.Context, request *v1.DeletePreAuthKeyRequest) (*v1.DeletePreAuthKeyResponse, error) {
	return s.stub.DeletePreAuthKey(ctx, request)
}
