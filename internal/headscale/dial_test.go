package headscale_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// A dialer is all that tells a socket from another way to Headscale: with one that
// connects over TLS, every call is the same on both transports.
var _ = Describe("A client whose dialer connects over TLS", func() {
	for _, release := range releases {
		Context("to Headscale "+release.String(), func() {
			f := &fixture{release: release}
			BeforeEach(func() {
				f.server = startFake(socketPath(), release)
				f.client = headscale.NewClient(overTLS(f.server))
				DeferCleanup(f.client.Close)
			})
			answerSpecs(f)
			closingSpecs(f)

			It("says that nobody was reached", func(ctx SpecContext) {
				f.server.Stop()
				_, err := f.client.ListAPIKeys(ctx)
				Expect(err).To(MatchError(headscale.ErrUnavailable))
			})
		})
	}
})

// overTLS puts a listener of TLS in front of a server's socket, and returns how to
// connect to it.
func overTLS(server *headscaletest.Server) headscale.Dialer {
	GinkgoHelper()
	https := httptest.NewTLSServer(nil)
	certificates := https.TLS.Certificates
	https.Close() // It was for its certificate only.

	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS13})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(listener.Close)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go forward(conn, server.SocketPath())
		}
	}()
	// Who answers is not what is tested.
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	return func(ctx context.Context) (net.Conn, error) {
		dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: config}
		conn, err := dialer.DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", headscale.ErrUnavailable, err)
		}
		return conn, nil
	}
}

// forward copies bytes between a connection and a socket until either ends.
func forward(conn net.Conn, path string) {
	defer func() { _ = conn.Close() }()
	socket, err := new(net.Dialer).DialContext(context.Background(), "unix", path)
	if err != nil {
		return
	}
	go func() {
		defer func() { _ = socket.Close() }()
		_, _ = io.Copy(socket, conn)
	}()
	_, _ = io.Copy(conn, socket)
}
