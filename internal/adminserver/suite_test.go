package adminserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

func TestAdminServer(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	RunSpecs(t, "Admin endpoint")
}

// Nothing may go on in the background once an endpoint is done with.
var _ = BeforeEach(func() {
	before := goleak.IgnoreCurrent()
	DeferCleanup(func() {
		Eventually(func() error { return goleak.Find(before) }).Should(Succeed())
	})
})

// validKey is accepted by every endpoint here.
const validKey = "hskey-api-AAAAAAAAAAAA-" + "0123456789012345678901234567890123456789012345678901234567890123"

// site is an endpoint in front of a socket.
type site struct {
	*Server
	// address is where the endpoint listens, and socket what is behind it.
	address, socket string
	log             *buffer

	mu       sync.Mutex
	statuses []int
}

// newSite serves the socket of a Headscale that speaks the transport, until the end of the spec.
func newSite(transport headscale.Transport) *site {
	GinkgoHelper()
	s := &site{socket: socketPath(), log: &buffer{}}
	certificate, err := NewCertificate(time.Now())
	Expect(err).NotTo(HaveOccurred())
	s.Server = &Server{
		Certificate: certificate, Keys: NewKeyring(time.Now), Dial: headscale.UnixSocket(s.socket),
		Transport: func() headscale.Transport { return transport }, Answered: s.answered,
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	s.Keys.Accept("AAAAAAAAAAAA", headscale.NewKey(validKey), time.Time{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	s.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, listener) }()
	DeferCleanup(func() {
		cancel()
		Eventually(done).Should(Receive())
	})
	return s
}

func (s *site) answered(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses = append(s.statuses, status)
}

// counted is how many answers of each status were reported.
func (s *site) counted() map[int]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := map[int]int{}
	for _, status := range s.statuses {
		count[status]++
	}
	return count
}

// tlsConfig is that of a client that knows the pin.
func (s *site) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, NextProtos: protocols,
		VerifyConnection: func(state tls.ConnectionState) error {
			if pin := pinOf(state.PeerCertificates[0]); pin != s.Certificate.Pin() {
				return &net.AddrError{Err: "another certificate", Addr: pin}
			}
			return nil
		},
	}
}

// client speaks HTTP/1.1 or HTTP/2 to the endpoint.
func (s *site) client(http2 bool) *http.Client {
	transport := &http.Transport{TLSClientConfig: s.tlsConfig(), Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetHTTP2(http2)
	DeferCleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// request makes a request with the valid key.
func (s *site) request(method, path string, body io.Reader) *http.Request {
	GinkgoHelper()
	request, err := http.NewRequest(method, "https://"+s.address+path, body)
	Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Authorization", "Bearer "+validKey)
	return request
}

// do returns the status and the body of the answer.
func do(client *http.Client, request *http.Request) (int, string) {
	GinkgoHelper()
	response, err := client.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	return response.StatusCode, string(body)
}

// grpcConn is a gRPC client of the endpoint that sends a key.
func (s *site) grpcConn(key string) *grpc.ClientConn {
	GinkgoHelper()
	conn, err := grpc.NewClient("passthrough:///"+s.address,
		grpc.WithTransportCredentials(credentials.NewTLS(s.tlsConfig())),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key), method, in, out, cc, options...)
		}))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(conn.Close)
	return conn
}

func (s *site) grpc(key string) v1.HeadscaleServiceClient {
	GinkgoHelper()
	return v1.NewHeadscaleServiceClient(s.grpcConn(key))
}

// fake runs a fake Headscale behind the endpoint until the end of the spec.
func (s *site) fake(release headscaletest.Release) *headscaletest.Server {
	GinkgoHelper()
	server := headscaletest.New(s.socket, release)
	Expect(server.Start()).To(Succeed())
	DeferCleanup(server.Stop)
	return server
}

// behind serves HTTP on the socket, over HTTP/1.1 and over HTTP/2, until the end of the spec.
func (s *site) behind(handler http.HandlerFunc) {
	GinkgoHelper()
	listener, err := net.Listen("unix", s.socket)
	Expect(err).NotTo(HaveOccurred())
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = server.Serve(listener) }()
	DeferCleanup(server.Close)
}

func socketPath() string {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "hs")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	return filepath.Join(dir, "headscale.sock")
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(text)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *buffer) lines() int { return strings.Count(b.String(), "\n") }

func pinOf(certificate *x509.Certificate) string {
	digest := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(digest[:])
}

// negotiated is the protocol that the endpoint chooses of those that a client offers.
func (s *site) negotiated(protocols ...string) string {
	GinkgoHelper()
	plain, err := new(net.Dialer).DialContext(context.Background(), "tcp", s.address)
	Expect(err).NotTo(HaveOccurred())
	conn := tls.Client(plain, s.tlsConfig(protocols...))
	defer func() { _ = conn.Close() }()
	Expect(conn.HandshakeContext(context.Background())).To(Succeed())
	return conn.ConnectionState().NegotiatedProtocol
}
