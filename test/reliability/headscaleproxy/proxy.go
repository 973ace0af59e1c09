// Package headscaleproxy stands between one client and the Unix socket of a real
// Headscale up to 0.29. It passes the three calls about API keys on, knows every key
// that was made through it, and fails on request.
package headscaleproxy

import (
	"context"
	"fmt"
	"net"
	"path"
	"slices"
	"sync"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// Proxy listens on a Unix socket. It is safe for concurrent use.
type Proxy struct {
	socket   string
	upstream *grpc.ClientConn
	server   *grpc.Server
	stopped  chan struct{}

	mutex  sync.Mutex
	faults []headscaletest.Fault
	texts  []string
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
	p.server = grpc.NewServer(grpc.UnaryInterceptor(p.intercept))
	v1.RegisterHeadscaleServiceServer(p.server, &service{stub: v1.NewHeadscaleServiceClient(conn)})
	go func() { _ = p.server.Serve(tracking{listener}) }() // ends with Stop
	return p, nil
}

// SocketPath is the socket that the proxy listens on.
func (p *Proxy) SocketPath() string { return p.socket }

// Stop ends the proxy and the calls in progress.
func (p *Proxy) Stop() {
	close(p.stopped)
	p.server.Stop()
	_ = p.upstream.Close()
}

// Inject adds a fault. A call is struck by the first that fits.
func (p *Proxy) Inject(fault headscaletest.Fault) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.faults = append(p.faults, fault)
}

// ClearFaults removes all faults.
func (p *Proxy) ClearFaults() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.faults = nil
}

// Texts are the keys that were made through the proxy.
func (p *Proxy) Texts() []string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return slices.Clone(p.texts)
}

// operations names the calls as faults do.
var operations = map[string]headscaletest.Operation{
	"ListApiKeys":  headscaletest.List,
	"CreateApiKey": headscaletest.Create,
	"ExpireApiKey": headscaletest.Expire,
}

// intercept passes a call on, or does to it what a fault says. Headscale goes on
// when its caller has hung up, and so a call that was begun is passed on to its end.
func (p *Proxy) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, pass grpc.UnaryHandler) (any, error) {
	fault := p.strike(operations[path.Base(info.FullMethod)])
	if !p.wait(fault.Delay) {
		return nil, cut(ctx)
	}
	switch fault.Do {
	case headscaletest.Refuse:
		return nil, status.Error(codes.Unknown, "database is locked")
	case headscaletest.Drop:
		return nil, cut(ctx)
	}
	answer, err := pass(context.WithoutCancel(ctx), request)
	if created, ok := answer.(*v1.CreateApiKeyResponse); ok && err == nil {
		p.note(created.GetApiKey())
	}
	if fault.Do == headscaletest.LoseAnswer {
		return nil, cut(ctx)
	}
	return answer, err
}

// strike takes the fault that a call is struck by; the zero Fault if there is none.
func (p *Proxy) strike(operation headscaletest.Operation) headscaletest.Fault {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	i := slices.IndexFunc(p.faults, func(f headscaletest.Fault) bool { return f.On == "" || f.On == operation })
	if i < 0 {
		return headscaletest.Fault{}
	}
	struck := p.faults[i]
	if struck.Times == 1 {
		p.faults = slices.Delete(p.faults, i, i+1)
	} else if struck.Times > 1 {
		p.faults[i].Times--
	}
	return struck
}

// wait returns false when the proxy was stopped before the time was over.
func (p *Proxy) wait(delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.stopped:
		return false
	}
}

func (p *Proxy) note(text string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.texts = append(p.texts, text)
}

// cut hangs up on the caller.
func cut(ctx context.Context) error {
	if caller, ok := peer.FromContext(ctx); ok {
		if address, ok := caller.Addr.(address); ok {
			_ = address.conn.Close()
		}
	}
	return status.Error(codes.Unavailable, "cut") // into a closed connection
}

// service passes calls on. What it does not know of a message passes through it.
type service struct {
	v1.UnimplementedHeadscaleServiceServer
	stub v1.HeadscaleServiceClient
}

func (s *service) ListApiKeys(ctx context.Context, request *v1.ListApiKeysRequest) (*v1.ListApiKeysResponse, error) {
	return s.stub.ListApiKeys(ctx, request)
}

func (s *service) CreateApiKey(ctx context.Context, request *v1.CreateApiKeyRequest) (*v1.CreateApiKeyResponse, error) {
	return s.stub.CreateApiKey(ctx, request)
}

func (s *service) ExpireApiKey(ctx context.Context, request *v1.ExpireApiKeyRequest) (*v1.ExpireApiKeyResponse, error) {
	return s.stub.ExpireApiKey(ctx, request)
}

// tracking gives each connection an address by which it is found again: all clients
// of a Unix socket have the same one otherwise.
type tracking struct{ net.Listener }

func (t tracking) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tracked{conn}, nil
}

type tracked struct{ net.Conn }

func (t tracked) RemoteAddr() net.Addr { return address{conn: t.Conn} }

type address struct{ conn net.Conn }

func (a address) Network() string { return "unix" }
func (a address) String() string  { return "@" }
