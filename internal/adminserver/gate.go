package adminserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/listen"
	"infrado.cloud/headscale-operator/internal/redact"
)

// What Headscale's admin API is below, over either transport.
const (
	grpcPath = "/headscale.v1.HeadscaleService/"
	httpPath = "/api/v1/"
)

// idleBehind is how long a connection to Headscale's socket is kept for the next request: for
// requests in a row, and for nobody at rest.
const idleBehind = 5 * time.Second

// muteAfter is how long a request may be without a whole answer until that may be because of the
// connection. It is shorter than the operator waits, and longer than any call of Headscale takes.
const muteAfter = 4 * time.Second

// maxHeaderBehind bounds the header of an answer of Headscale, in bytes.
const maxHeaderBehind = 64 << 10

// awayPause is the least time between two lines of the log that say that Headscale is not reached: one
// that comes and goes could fill the log. maxLogged bounds what they quote, in bytes.
const (
	awayPause = time.Minute
	maxLogged = 200
)

// gate forwards requests to Headscale that have a valid key and are for its admin API.
type gate struct {
	*Server
	grpc  atomic.Pointer[http.Transport]
	http  *http.Transport
	proxy *httputil.ReverseProxy
	// away is whether the log said last that Headscale was not reached, and said when, in seconds.
	away atomic.Bool
	said atomic.Int64
}

func newGate(s *Server) *gate {
	g := &gate{Server: s}
	g.grpc.Store(g.grpcTransport())
	g.http = g.transport()
	g.http.Protocols.SetHTTP1(true)
	// Without a FlushInterval, messages of a stream are passed on as they come, since no length is
	// stated, and the status of a refused call, which comes with its headers, ends the stream.
	g.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      g,
		ModifyResponse: g.answered,
		ErrorHandler:   g.failed,
		ErrorLog:       slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	return g
}

func (g *gate) grpcTransport() *http.Transport {
	t := g.transport()
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

func (g *gate) transport() *http.Transport {
	return &http.Transport{
		DialContext:            g.dial,
		Protocols:              new(http.Protocols),
		DisableCompression:     true,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        idleBehind,
		MaxResponseHeaderBytes: maxHeaderBehind,
	}
}

// dialError says that Headscale's socket could not be reached.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

func (g *gate) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	connection, err := g.Dial(ctx)
	if err != nil {
		return nil, dialError{err}
	}
	return connection, nil
}

func (g *gate) close() {
	g.grpc.Load().CloseIdleConnections()
	g.http.CloseIdleConnections()
}

// ServeHTTP checks a request and forwards it. A client without a valid key learns nothing else.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case !g.Keys.admits(r.Header):
		w.Header().Set("WWW-Authenticate", scheme)
		g.refuse(w, r, http.StatusUnauthorized, "the API key is missing or not valid: send the one that is in the Secret now as Authorization: Bearer KEY")
	case !allowed(r):
		g.refuse(w, r, http.StatusNotFound, "only Headscale's admin API is served here")
	case !g.isSpoken(r):
		g.refuse(w, r, misdirected(r), "the running Headscale does not speak this protocol: up to 0.29 its admin API is gRPC, from 0.30 on JSON over HTTP")
	case r.ContentLength > maxBodyBytes:
		g.refuse(w, r, http.StatusRequestEntityTooLarge, bodyTooLarge)
	default:
		listen.Admit(r)
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		defer g.leaveMute(ctx, g.grpc.Load(), g.Keys.clock())
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		g.proxy.ServeHTTP(w, r.WithContext(ctx))
	}
}

// leaveMute has the next requests use another connection after one that was not answered in time. All
// requests of gRPC share one, and who replaced Headscale's socket can keep it open and say nothing, also
// when the right socket is back.
func (g *gate) leaveMute(ctx context.Context, used *http.Transport, began time.Time) {
	if ctx.Err() != nil && g.Keys.clock().Sub(began) >= muteAfter && g.grpc.CompareAndSwap(used, g.grpcTransport()) {
		used.CloseIdleConnections()
	}
}

const bodyTooLarge = "the body is longer than 4 MiB"

// allowed reports whether a request is for Headscale's admin API, in a form that nothing
// behind can take for another.
func allowed(r *http.Request) bool {
	name := r.URL.Path
	switch {
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace || r.Header.Get("Upgrade") != "":
		return false
	case name != path.Clean(name) || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == '\\' || c == 0x7f }):
		return false
	case isGRPC(r):
		return r.ProtoMajor == 2 && r.Method == http.MethodPost && r.URL.EscapedPath() == name && strings.Count(name, "/") == 2
	default:
		return strings.HasPrefix(name, httpPath) && strings.HasPrefix(r.URL.EscapedPath(), httpPath)
	}
}

// isGRPC reports whether a request is for the admin API over gRPC, by its path.
func isGRPC(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, grpcPath) }

// isSpoken reports whether a request uses the transport of the running Headscale, if that is known.
func (g *gate) isSpoken(r *http.Request) bool {
	switch g.Transport() {
	case headscale.TransportGRPC:
		return isGRPC(r)
	case headscale.TransportHTTP:
		return !isGRPC(r)
	default:
		return true
	}
}

// misdirected is the status of a request that isSpoken refuses. Clients of gRPC take a bad gateway for
// Unavailable, and connect again, which detects the transport again.
func misdirected(r *http.Request) int {
	if isGRPC(r) {
		return http.StatusBadGateway
	}
	return http.StatusMisdirectedRequest
}

// rewrite builds the request to Headscale, without the key.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "localhost", ""
	r.Out.Header.Del("Authorization")
	r.Out.Header.Del("Cookie")
}

// RoundTrip forwards a request to Headscale, and logs once when it cannot be reached and once when
// it can again.
func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	transport := g.http
	if isGRPC(r) {
		transport = g.grpc.Load()
	}
	response, err := transport.RoundTrip(r)
	var notReached dialError
	switch {
	case err == nil:
		if g.away.CompareAndSwap(true, false) {
			g.Log.Info("The admin endpoint reaches Headscale again")
		}
	case r.Context().Err() == nil && errors.As(err, &notReached):
		g.sayAway(err)
	}
	return response, err
}

// sayAway says in the log that Headscale is not reached, if it has not, and not within awayPause.
func (g *gate) sayAway(err error) {
	now, said := g.Keys.clock().Unix(), g.said.Load()
	if said != 0 && time.Duration(now-said)*time.Second < awayPause || !g.away.CompareAndSwap(false, true) {
		return
	}
	g.said.Store(now)
	g.Log.Warn("The admin endpoint cannot reach Headscale on its socket", "message", redact.Line(headscale.Redact(err.Error()), maxLogged))
}

// answered reports Headscale's answer.
func (g *gate) answered(response *http.Response) error {
	g.count(response.StatusCode)
	return nil
}

// failed answers where Headscale did not.
func (g *gate) failed(w http.ResponseWriter, r *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		g.refuse(w, r, http.StatusRequestEntityTooLarge, bodyTooLarge)
	case errors.Is(err, context.DeadlineExceeded):
		g.refuse(w, r, http.StatusGatewayTimeout, "Headscale did not answer in time")
	default:
		g.refuse(w, r, http.StatusBadGateway, "Headscale did not answer on its socket, or speaks another protocol there")
	}
}

// refuse answers without Headscale, and without waiting for the rest of the request.
func (g *gate) refuse(w http.ResponseWriter, r *http.Request, status int, message string) {
	g.count(status)
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
	http.Error(w, message, status)
}

func (g *gate) count(status int) {
	if g.Answered != nil {
		g.Answered(status)
	}
}
