package adminserver

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/listen"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// Bounds on requests, so that nobody can hold on to the memory of the sidecar.
const (
	headerTimeout = 5 * time.Second
	// requestTimeout is for a request and its answer. The slowest call of Headscale, setting a
	// policy, takes half a second.
	requestTimeout = 30 * time.Second
	// answerGrace is how much longer there is time to say that a request took too long.
	answerGrace    = 5 * time.Second
	idleTimeout    = 90 * time.Second
	maxHeaderBytes = 16 << 10
	// maxBodyBytes leaves room for a large policy.
	maxBodyBytes = 4 << 20
	// maxConnections are those of the operator, and of a few consumers.
	maxConnections = 32
	// maxStreams are the requests at a time on one connection over HTTP/2.
	maxStreams = 32
	// The windows of HTTP/2, the smallest that its standard begins with.
	maxFrame, maxWindow = 16 << 10, 64<<10 - 1
)

// maxRebind bounds the time between two attempts to listen on the address.
const maxRebind = time.Minute

// The protocols that are negotiated by TLS (RFC 7301).
const (
	protocolHTTP2 = "h2"
	protocolHTTP1 = "http/1.1"
)

// Server serves Headscale's admin API to whoever holds a key.
type Server struct {
	// Address is host:port; the host may be left out.
	Address     string
	Certificate Certificate
	Keys        *Keyring
	// Dial connects to Headscale's socket.
	Dial headscale.Dialer
	// Transport returns what Headscale was last found to speak. Unknown counts as gRPC.
	Transport func() headscale.Transport
	// Answered is called with the HTTP status of each answer; it may be nil.
	Answered func(status int)
	Log      *slog.Logger
}

// Start serves until the context ends. It retries while the address cannot be listened on, logs
// that once, and always returns nil: the rotation of keys is more important than this endpoint.
func (s *Server) Start(ctx context.Context) error {
	listen.Server{
		Name: "Admin endpoint", Address: s.Address, Serve: s.Serve, Log: s.Log,
		Backoff: func() wait.Backoff { return rotation.NewBackoff(maxRebind) },
	}.Run(ctx)
	return nil
}

// Serve answers requests on the listener until the context ends or the listener fails, and
// returns why it ended.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	gate := newGate(s)
	defer gate.close()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	server := &http.Server{
		Handler:           gate,
		Protocols:         protocols,
		TLSConfig:         s.tlsConfig(),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout + answerGrace, IdleTimeout: idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // it would answer OPTIONS * without a key
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame,
			MaxReceiveBufferPerConnection: maxWindow, MaxReceiveBufferPerStream: maxWindow,
		},
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	listen.LimitConnections(server, maxConnections)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return server.ServeTLS(listener, "", "")
}

// tlsConfig prefers the protocol of the Headscale that runs when a client connects.
func (s *Server) tlsConfig() *tls.Config {
	grpc := s.Certificate.config(protocolHTTP2, protocolHTTP1)
	http1 := s.Certificate.config(protocolHTTP1, protocolHTTP2)
	config := grpc.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if s.Transport() == headscale.TransportHTTP {
			return http1, nil
		}
		return grpc, nil
	}
	return config
}
