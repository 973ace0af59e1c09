// Package headscaleproxy stands between one client and the Unix socket of a real
// Headscale up to 0.29. It passes the three calls about API keys on, knows every key
// that was made through it, and fails on request.
package headscaleproxy

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// Proxy listens on a Unix socket. It is safe for concurrent use.
type Proxy struct {
	headscaletest.Faults
	socket   string
	upstream *grpc.ClientConn
	server   *grpc.Server
	stopped  chan struct{}

	mutex sync.Mutex
	texts []string
}

// Start listens on the socket at the path, in front of the one at upstream.
func Start(socket, upstream string) (*Proxy, error) {
	conn, err := grpc.NewClient("unix:"+upstream, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("preparing the way to Headscale: %w", err)
	}
	listener, err := net.Listen("unix", socket) //nolint:noctx // a local listener, at once
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	p := &Proxy{socket: socket, upstream: conn, stopped: make(chan struct{})}
	p.server = headscaletest.NewGRPCServer(&service{proxy: p, stub: v1.NewHeadscaleServiceClient(conn)}, p.perform)
	go func() { _ = p.server.Serve(headscaletest.Trackable{Listener: listener}) }() // ends with Stop
	return p, nil
}

// SocketPath is the socket that the proxy listens on.
func (p *Proxy) SocketPath() string { return p.socket }

// Stop ends the proxy and the calls in progress.
func (p *Proxy) Stop() {
	close(p.stopped)
	_ = p.upstream.Close()
	p.server.Stop()
}

// Texts are the keys that were made through the proxy.
func (p *Proxy) Texts() []string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return slices.Clone(p.texts)
}

// perform passes a call on, or does to it what a fault says.
func (p *Proxy) perform(operation headscaletest.Operation, work func() error) error {
	return p.Strike(operation, func(delay time.Duration) bool {
		select {
		case <-time.After(delay):
			return true
		case <-p.stopped:
			return false
		}
	}, work)
}

// service passes calls on. What it does not know of a message passes through it.
type service struct {
	v1.UnimplementedHeadscaleServiceServer
	proxy *Proxy
	stub  v1.HeadscaleServiceClient
}

func (s *service) ListApiKeys(ctx context.Context, request *v1.ListApiKeysRequest) (*v1.ListApiKeysResponse, error) {
	return s.stub.ListApiKeys(ctx, request)
}

func (s *service) CreateApiKey(ctx context.Context, request *v1.CreateApiKeyRequest) (*v1.CreateApiKeyResponse, error) {
	created, err := s.stub.CreateApiKey(ctx, request)
	if err == nil {
		s.proxy.mutex.Lock()
		defer s.proxy.mutex.Unlock()
		s.proxy.texts = append(s.proxy.texts, created.GetApiKey())
	}
	return created, err
}

func (s *service) ExpireApiKey(ctx context.Context, request *v1.ExpireApiKeyRequest) (*v1.ExpireApiKeyResponse, error) {
	return s.stub.ExpireApiKey(ctx, request)
}
