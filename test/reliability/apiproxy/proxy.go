// Package apiproxy stands between one client and a real kube-apiserver. It passes
// everything on, and fails on request: the server is away, hangs, or does what it
// was asked for and its reply is lost.
package apiproxy

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"

	"k8s.io/client-go/rest"
)

// Action is what happens to a write.
type Action int

const (
	// Pass hands the write on, and the reply back.
	Pass Action = iota
	// LoseReply hands the write on, and cuts the connection instead of replying.
	LoseReply
	// Drop cuts the connection, and hands nothing on.
	Drop
)

// Proxy listens on the loopback interface. It is safe for concurrent use.
type Proxy struct {
	forward *httputil.ReverseProxy
	address string

	mutex    sync.Mutex
	server   *httptest.Server // nil while away
	resumed  chan struct{}
	onWrite  func(number int) Action
	writes   int
	requests int
}

// Start starts a proxy in front of the server that the config names. Clients of the
// proxy identify themselves by a token; a certificate could not be passed on.
func Start(config *rest.Config) (*Proxy, error) {
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(config))
	if err != nil {
		return nil, fmt.Errorf("preparing the way to the API server: %w", err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	p := &Proxy{address: "127.0.0.1:0", resumed: make(chan struct{})}
	close(p.resumed)
	p.forward = &httputil.ReverseProxy{
		Rewrite:       func(request *httputil.ProxyRequest) { request.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // a watch must not wait for a full buffer
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	err = p.Return()
	return p, err
}

// Config leads to the proxy. It has no credentials.
func (p *Proxy) Config() *rest.Config {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
	return &rest.Config{Host: "https://" + p.address, TLSClientConfig: rest.TLSClientConfig{CAData: authority}}
}

// Leave makes the server be away: connections are cut, new ones are refused.
func (p *Proxy) Leave() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.server == nil {
		return nil
	}
	server := p.server.Config // whose Close, unlike that of httptest, waits for no request
	p.server = nil
	return server.Close()
}

// Return ends Leave, on the same address and with the same certificate.
func (p *Proxy) Return() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.server != nil {
		return nil
	}
	listener, err := net.Listen("tcp", p.address) //nolint:noctx // a local listener, at once
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	p.address = listener.Addr().String()
	p.server = &httptest.Server{
		Listener: listener, EnableHTTP2: true, Config: &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)},
	}
	p.server.StartTLS()
	return nil
}

// Hang lets requests in and answers none of them, until the returned function is called.
func (p *Proxy) Hang() (resume func()) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	hanging := make(chan struct{})
	p.resumed = hanging
	return sync.OnceFunc(func() { close(hanging) })
}

// OnWrite has the function decide about each write from now on; they are counted
// from 1. The function is called before the write is handed on, and may do what
// somebody else would do at that moment. Nil: all writes pass.
func (p *Proxy) OnWrite(decide func(number int) Action) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.onWrite, p.writes = decide, 0
}

// Requests is how many requests were made so far, a watch counting once.
func (p *Proxy) Requests() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.requests
}

// ServeHTTP passes a request on, or fails.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mutex.Lock()
	p.requests++
	resumed := p.resumed
	p.mutex.Unlock()
	select {
	case <-resumed:
	case <-r.Context().Done():
		return
	}
	switch p.judge(r) {
	case Pass:
		p.forward.ServeHTTP(w, r)
		return
	case LoseReply:
		p.forward.ServeHTTP(httptest.NewRecorder(), r)
	}
	panic(http.ErrAbortHandler) // the documented way to hang up
}

func (p *Proxy) judge(r *http.Request) Action {
	if r.Method == http.MethodGet {
		return Pass
	}
	p.mutex.Lock()
	p.writes++
	decide, number := p.onWrite, p.writes
	p.mutex.Unlock()
	if decide == nil {
		return Pass
	}
	return decide(number)
}
