package headscale_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

var token = headscale.NewKey("hskey-api-0123456789ab-" + strings.Repeat("5ecre7", 10) + "t0ke")

// endpoint is as much of an admin endpoint as the client can tell: TLS, the negotiation, and the
// check of the key, in front of a server's socket.
type endpoint struct {
	address    string
	pin        headscale.Pin
	connected  atomic.Int32
	abort      atomic.Bool // breaks off each answer
	protocols  []string
	token      string
	mu         sync.Mutex
	open       map[net.Conn]bool
	listener   net.Listener
	socketPath string
}

type failer interface{ Fatal(...any) }

// serveEndpoint serves a socket until cleanup.
func serveEndpoint(f failer, cleanup func(func()), socketPath string, release headscaletest.Release) *endpoint {
	e := &endpoint{token: "Bearer " + token.Reveal(), open: map[net.Conn]bool{}, socketPath: socketPath, protocols: []string{"h2", "http/1.1"}}
	if release == headscaletest.V030 {
		e.protocols = []string{"http/1.1", "h2"}
	}
	certificate, pin, err := newCertificate()
	if err != nil {
		f.Fatal(err)
	}
	e.pin = pin
	if e.listener, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13, NextProtos: e.protocols,
	}); err != nil {
		f.Fatal(err)
	}
	e.address = e.listener.Addr().String()
	server := &http.Server{
		Handler: e.handler(release), ReadHeaderTimeout: time.Minute, ConnState: e.track, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{NextProtos: e.protocols, MinVersion: tls.VersionTLS13},
	}
	go func() { _ = server.Serve(e.listener) }() // until it is closed
	cleanup(func() { _ = server.Close() })
	return e
}

func newCertificate() (tls.Certificate, headscale.Pin, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, headscale.Pin{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)} // no name, no validity: the pin is all
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, headscale.Pin{}, err
	}
	parsed, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, headscale.PinOf(parsed), err
}

// handler refuses all but the key, and passes everything else on.
func (e *endpoint) handler(release headscaletest.Release) http.Handler {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.socketPath)
	}
	transport := &http.Transport{DialContext: dial, DisableCompression: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(release == headscaletest.V030)
	transport.Protocols.SetUnencryptedHTTP2(release != headscaletest.V030)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "headscale"
			r.Out.Header.Del("Authorization")
		},
		Transport: transport, ErrorLog: log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		allowed := r.Header.Get("Authorization") == e.token
		e.mu.Unlock()
		if !allowed {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if e.abort.Load() {
			panic(http.ErrAbortHandler)
		}
		defer transport.CloseIdleConnections()
		proxy.ServeHTTP(w, r)
	})
}

func (e *endpoint) track(conn net.Conn, state http.ConnState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch state {
	case http.StateNew:
		e.connected.Add(1)
		e.open[conn] = true
	case http.StateClosed, http.StateHijacked:
		delete(e.open, conn)
	}
}

// hangUp ends all connections, as a sidecar that restarts does, and waits until the other side
// has noticed.
func (e *endpoint) hangUp() {
	GinkgoHelper()
	e.mu.Lock()
	for conn := range e.open {
		secured, ok := conn.(*tls.Conn)
		Expect(ok).To(BeTrue())
		_ = secured.CloseWrite() // fails where the other side was faster
	}
	e.mu.Unlock()
	Eventually(func() int {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.open)
	}).Should(BeZero())
}

// accept replaces the key that is let in.
func (e *endpoint) accept(key headscale.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.token = "Bearer " + key.Reveal()
}

var _ = Describe("A client of the admin endpoint", func() {
	for _, release := range []headscaletest.Release{headscaletest.V026, headscaletest.V029, headscaletest.V030} {
		for _, keep := range []bool{false, true} {
			name := "of Headscale " + release.String()
			options := []headscale.Option{headscale.WithBearerToken(token)}
			if keep {
				name += ", with a connection that is kept"
				options = append(options, headscale.WithKeepAlive())
			}
			Context(name, func() { describeEndpoint(release, keep, options) })
		}
	}

	It("reads pins as they are written", func() {
		_, pin, err := newCertificate()
		Expect(err).NotTo(HaveOccurred())
		Expect(pin.String()).To(MatchRegexp(`^[0-9a-f]{64}$`))
		Expect(headscale.ParsePin(pin.String())).To(Equal(pin))
		for _, bad := range []string{"", "0f", strings.ToUpper(pin.String()), pin.String() + "00", strings.Repeat("x", 64), " " + pin.String()} {
			_, err := headscale.ParsePin(bad)
			Expect(err).To(MatchError(ContainSubstring("64 lower-case hexadecimal digits")), "%q", bad)
		}
	})
})

func describeEndpoint(release headscaletest.Release, keep bool, options []headscale.Option) {
	f := &endpointFixture{fixture: fixture{release: release}, keep: keep, options: options}
	BeforeEach(func() {
		f.server = startFake(socketPath(), release)
		f.endpoint = serveEndpoint(GinkgoT(), func(end func()) { DeferCleanup(end) }, f.server.SocketPath(), release)
		f.client = headscale.NewClient(headscale.AdminEndpoint(f.endpoint.address, f.endpoint.pin), options...)
		DeferCleanup(f.client.Close)
	})
	answerSpecs(&f.fixture)
	closingSpecs(&f.fixture)
	endpointIdentitySpecs(f)
	endpointFailureSpecs(f)
}

// endpointFixture is a client of an admin endpoint.
type endpointFixture struct {
	fixture
	endpoint *endpoint
	// keep is whether the client keeps its connection, and options what it was made with.
	keep    bool
	options []headscale.Option
}

// endpointIdentitySpecs are about who is on either side.
func endpointIdentitySpecs(f *endpointFixture) {
	It("knows the transport from the handshake, and needs no second one", func(ctx SpecContext) {
		Expect(f.client.ListAPIKeys(ctx)).To(BeEmpty())
		Expect(f.client.Transport()).To(Equal(transportOf(f.release)))
		Expect(f.endpoint.connected.Load()).To(Equal(int32(1)))
		for range 3 {
			_, err := f.client.CreateUser(ctx, headscale.NewUser{Name: "alice"})
			Expect(err).To(Or(Succeed(), MatchError(headscale.ErrUserExists)))
		}
		if f.keep {
			Expect(f.endpoint.connected.Load()).To(Equal(int32(1)))
		} else {
			Expect(f.endpoint.connected.Load()).To(Equal(int32(4)))
		}
	})

	It("says that its key was refused, and shows no key", func(ctx SpecContext) {
		Expect(f.client.ListUsers(ctx)).To(BeEmpty())
		f.endpoint.accept(headscale.NewKey("another"))
		_, err := f.client.ListUsers(ctx)
		Expect(err).To(MatchError(headscale.ErrUnauthorized))
		Expect(err).NotTo(MatchError(headscale.ErrUnavailable))
		_, err = f.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: 1, Expiration: tomorrow()})
		Expect(err).To(MatchError(headscale.ErrUnauthorized))
		expectNoKey(err)
		f.endpoint.accept(token)
		Expect(f.client.ListUsers(ctx)).To(BeEmpty())
	})

	It("gives its key to nobody but the one it expects", func(ctx SpecContext) {
		client := headscale.NewClient(headscale.AdminEndpoint(f.endpoint.address, headscale.Pin{1}), f.options...)
		DeferCleanup(client.Close)
		_, err := client.ListUsers(ctx)
		Expect(err).To(MatchError(headscale.ErrPinMismatch))
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		Expect(err.Error()).To(Equal("listing users: " + headscale.ErrPinMismatch.Error()))
	})
}

// endpointFailureSpecs are about a side that does not answer.
func endpointFailureSpecs(f *endpointFixture) {
	It("says that Headscale behind the endpoint does not answer", func(ctx SpecContext) {
		f.server.Stop()
		_, err := f.client.ListUsers(ctx)
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		Expect(f.server.Start()).To(Succeed())
		Expect(f.client.ListUsers(ctx)).To(BeEmpty())
	})

	It("loses no call when the other side hangs up between two", func(ctx SpecContext) {
		for i := range 5 {
			_, err := f.client.CreateUser(ctx, headscale.NewUser{Name: "alice" + strings.Repeat("a", i)})
			Expect(err).NotTo(HaveOccurred())
			f.endpoint.hangUp()
			Expect(f.client.ListUsers(ctx)).To(HaveLen(i + 1))
			f.endpoint.hangUp()
		}
		Expect(f.server.Calls(headscaletest.CreateUser)).To(Equal(5))
	})

	It("takes it for no answer when the endpoint breaks off", func(ctx SpecContext) {
		Expect(f.client.ListUsers(ctx)).To(BeEmpty())
		f.endpoint.abort.Store(true)
		_, err := f.client.CreateUser(ctx, headscale.NewUser{Name: "alice"})
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		f.endpoint.abort.Store(false)
		Expect(f.client.ListUsers(ctx)).To(BeEmpty())
	})

	It("repeats no call whose answer was lost", func(ctx SpecContext) {
		Expect(f.client.ListUsers(ctx)).To(BeEmpty())
		f.server.Inject(headscaletest.Fault{On: headscaletest.CreateUser, Do: headscaletest.LoseAnswer, Times: 1})
		_, err := f.client.CreateUser(ctx, headscale.NewUser{Name: "alice"})
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		Expect(f.server.Calls(headscaletest.CreateUser)).To(Equal(1))
		Expect(f.client.ListUsers(ctx)).To(HaveLen(1))
	})

	It("says that nobody listens, or speaks TLS 1.3", func(ctx SpecContext) {
		for _, serve := range []func(net.Conn){
			func(conn net.Conn) { _ = conn.Close() },
			func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); _ = conn.Close() },
			func(conn net.Conn) {
				certificate, _, _ := newCertificate()
				old := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: tls.VersionTLS12})
				_ = old.HandshakeContext(ctx)
				_ = old.Close()
			},
		} {
			listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
			Expect(err).NotTo(HaveOccurred())
			go func() {
				if conn, err := listener.Accept(); err == nil {
					serve(conn)
				}
			}()
			client := headscale.NewClient(headscale.AdminEndpoint(listener.Addr().String(), f.endpoint.pin), f.options...)
			_, err = client.ListUsers(ctx)
			Expect(err).To(MatchError(headscale.ErrUnavailable))
			Expect(errors.Is(err, headscale.ErrPinMismatch)).To(BeFalse())
			Expect(listener.Close()).To(Succeed())
			_, err = client.ListUsers(ctx)
			Expect(err).To(MatchError(headscale.ErrUnavailable))
			Expect(client.Close()).To(Succeed())
		}
	})
}
