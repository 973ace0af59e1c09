package apikey

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"infrado.cloud/headscale-operator/internal/rotation"
)

// Bounds on requests to the Endpoint, so that nobody can hold on to its memory.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 8 << 10
	// maxConnections are those of the kubelet, of a few Prometheus servers, and of a person.
	maxConnections = 16
)

// maxRebind bounds the time between two attempts to listen on the address.
const maxRebind = time.Minute

// Endpoint serves /metrics, and /healthz: 200 while the Manager is alive, with its notice if
// there is one, else 503 and a sentence. It is a manager.Runnable of controller-runtime.
type Endpoint struct {
	// Address is host:port; the host may be left out.
	Address string
	// Metrics answers requests for /metrics.
	Metrics http.Handler
	// Alive says whether the Manager is.
	Alive func() error
	// Notice is shown by /healthz while the Manager is alive; it may be empty.
	Notice func() string
	Log    *slog.Logger
}

// Start serves until the context ends. It tries again and again where the address
// cannot be listened on, says so once, and always returns nil: keys are more important
// than their metrics.
func (e *Endpoint) Start(ctx context.Context) error {
	again := rotation.NewBackoff(maxRebind)
	failing := false
	for ctx.Err() == nil {
		problem := e.serve(ctx, func(address net.Addr) {
			if failing {
				e.Log.Info("Metrics and health server is listening again", "address", address)
			}
			failing = false
			again = rotation.NewBackoff(maxRebind)
		})
		if !failing && ctx.Err() == nil {
			e.Log.Warn("Metrics and health server failed; retrying", "address", e.Address, "message", problem)
		}
		failing = true
		pause(ctx, again.Step())
	}
	return nil
}

// serve listens, says so, and answers requests until the context ends or the listener
// fails. It returns why it ended.
func (e *Endpoint) serve(ctx context.Context, listening func(net.Addr)) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", e.Address)
	if err != nil {
		return err
	}
	listening(listener.Addr())
	server := &http.Server{
		Handler:           e.handler(),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ConnState:      new(connections).changed,
		ErrorLog:       slog.NewLogLogger(e.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return server.Serve(listener)
}

// connections are those that a server has open, from the oldest to the newest.
type connections struct {
	mu   sync.Mutex
	open []net.Conn
}

// changed is the server's ConnState: it closes the oldest connection where there are too
// many. Who holds connections open can so keep nobody out, the kubelet's probe least of all.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.open = append(c.open, conn)
		if len(c.open) > maxConnections {
			_ = c.open[0].Close() // says only that it was closed before
			c.open = slices.Delete(c.open, 0, 1)
		}
	case http.StateClosed:
		c.open = slices.DeleteFunc(c.open, func(other net.Conn) bool { return other == conn })
	}
}

func (e *Endpoint) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", e.Metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := e.Alive(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
		if notice := e.Notice(); notice != "" {
			_, _ = fmt.Fprintln(w, notice)
		}
	})
	return mux
}
