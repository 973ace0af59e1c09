package headscale_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

func TestHeadscale(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	RunSpecs(t, "Headscale's admin API")
}

// servers are the goroutines behind real servers, which live for several specs.
var servers = []goleak.Option{
	goleak.IgnoreAnyFunction("infrado.cloud/headscale-operator/test/process.(*Process).run"),
	goleak.IgnoreAnyFunction("os/exec.(*Cmd).writerDescriptor.func1"),
}

// Nothing may go on in the background once a client and its server are done with.
var _ = BeforeEach(func() {
	before := goleak.IgnoreCurrent()
	DeferCleanup(func() {
		Eventually(func() error { return goleak.Find(append(servers, before)...) }).Should(Succeed())
	})
})

var releases = []headscaletest.Release{headscaletest.V027, headscaletest.V028, headscaletest.V030}

// transportOf is what a client is to find out.
func transportOf(release headscaletest.Release) headscale.Transport {
	if release == headscaletest.V030 {
		return headscale.TransportHTTP
	}
	return headscale.TransportGRPC
}

// socketDir returns a new directory with a path short enough for a socket in it.
func socketDir() string {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "hs")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	return dir
}

func socketPath() string {
	GinkgoHelper()
	return filepath.Join(socketDir(), "headscale.sock")
}

// startFake runs a fake Headscale until the end of the spec.
func startFake(path string, release headscaletest.Release, options ...headscaletest.Option) *headscaletest.Server {
	GinkgoHelper()
	server := headscaletest.New(path, release, options...)
	Expect(server.Start()).To(Succeed())
	DeferCleanup(server.Stop)
	return server
}

func newClient(path string, options ...headscale.Option) *headscale.Client {
	client := headscale.NewClient(headscale.UnixSocket(path), options...)
	DeferCleanup(client.Close)
	return client
}

func listen(path string) net.Listener {
	GinkgoHelper()
	socket, err := new(net.ListenConfig).Listen(context.Background(), "unix", path)
	Expect(err).NotTo(HaveOccurred())
	return socket
}

// listenRaw hands every connection to serve, which owns it, until the end of the spec.
func listenRaw(path string, serve func(net.Conn)) {
	GinkgoHelper()
	socket := listen(path)
	DeferCleanup(socket.Close)
	go func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
}

// soon is a timeout for calls that are expected to run into it.
var soon = headscale.WithCallTimeout(100 * time.Millisecond)
