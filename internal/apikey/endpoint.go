package apikey

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"infrado.cloud/headscale-operator/internal/listen"
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
	listen.Server{
		Name: "Metrics and health server", Address: e.Address, Serve: e.serve, Log: e.Log,
		Backoff: func() wait.Backoff { return rotation.NewBackoff(maxRebind) },
	}.Run(ctx)
	return nil
}

// serve answers requests until the context ends or the listener fails. It returns why it
// ended.
func (e *Endpoint) serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           e.handler(),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(e.Log.Handler(), slog.LevelDebug),
	}
	listen.LimitConnections(server, maxConnections) // else a flood of them keeps the kubelet's probe out
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return server.Serve(listener)
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
