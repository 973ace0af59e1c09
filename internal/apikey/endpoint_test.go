package apikey

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

var _ = Describe("The endpoint", func() {
	var (
		alive  atomic.Pointer[error]
		notice atomic.Pointer[string]
		log    *lockedBuffer
		client *http.Client
	)

	// serve starts an endpoint at the address and returns what ends it.
	serve := func(address string) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		endpoint := &Endpoint{
			Address: address, Log: slog.New(slog.NewTextHandler(log, nil)),
			Metrics: NewMetrics(MetricsFacts{Version: "v1", Transport: func() headscale.Transport { return headscale.TransportUnknown }}).Handler(),
			Alive: func() error {
				if err := alive.Load(); err != nil {
					return *err
				}
				return nil
			},
			Notice: func() string {
				if said := notice.Load(); said != nil {
					return *said
				}
				return ""
			},
		}
		done := make(chan error, 1)
		go func() { done <- endpoint.Start(ctx) }()
		return func() {
			cancel()
			Eventually(done).Should(Receive(BeNil()))
		}
	}
	get := func(url string) (int, string, error) {
		response, err := client.Get(url)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, string(body), err
	}

	status := func(url string) (int, error) {
		code, _, err := get(url)
		return code, err
	}

	BeforeEach(func() {
		alive.Store(nil)
		notice.Store(nil)
		log = &lockedBuffer{}
		client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		leaks := goleak.IgnoreCurrent()
		DeferCleanup(func() { Eventually(func() error { return goleak.Find(leaks) }).Should(Succeed()) })
	})

	freeAddress := func() string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		Expect(listener.Close()).To(Succeed())
		return listener.Addr().String()
	}
	// serveAnywhere serves at a free address: at another one where somebody took it before it did.
	serveAnywhere := func() (address string, stop func()) {
		GinkgoHelper()
		for range 5 {
			log = &lockedBuffer{}
			address = freeAddress()
			stop = serve(address)
			Eventually(func() bool {
				code, _ := status("http://" + address + "/healthz")
				return code == 200 || log.String() != ""
			}).Should(BeTrue())
			if log.String() == "" {
				return address, stop
			}
			stop()
		}
		Fail("no endpoint at any address: " + log.String())
		return "", nil
	}

	It("serves metrics, and says whether the Manager is alive", func() {
		address, stop := serveAnywhere()
		defer stop()
		code, body, err := get("http://" + address + "/metrics")
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(200))
		Expect(body).To(ContainSubstring(`headscale_apikey_build_info{commit="",go_version="go`))

		said := "an annotation is ignored"
		notice.Store(&said)
		code, body, err = get("http://" + address + "/healthz")
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(200))
		Expect(body).To(Equal("ok\nan annotation is ignored\n"))

		stuck := errors.New("the API Key Manager has been stuck for 4m0s")
		alive.Store(&stuck)
		code, body, err = get("http://" + address + "/healthz")
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(503))
		Expect(strings.TrimSpace(body)).To(Equal(stuck.Error()))
		Expect(status("http://" + address + "/debug/pprof/")).To(Equal(404))
		response, err := client.Post("http://"+address+"/metrics", "text/plain", http.NoBody)
		Expect(err).NotTo(HaveOccurred())
		Expect(response.Body.Close()).To(Succeed())
		Expect(response.StatusCode).To(Equal(405))
		Expect(log.String()).To(BeEmpty())
	})

	It("answers while others hold connections open, of which it keeps the newest", func(ctx SpecContext) {
		address, stop := serveAnywhere()
		defer stop()
		const held = 200
		var newestToGo net.Conn // of those that there are too many of
		var ended atomic.Int64
		for i := range held {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(conn.Close)
			if i == held-maxConnections-1 {
				newestToGo = conn
			}
			_, _ = io.WriteString(conn, []string{"", "GET /metrics HTTP/1.1\r\nX-Slow: "}[i%2])
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				ended.Add(1)
			}()
		}
		Expect(status("http://" + address + "/healthz")).To(Equal(200))
		// It was closed before the answer was given, so the end of it is here already.
		Expect(newestToGo.SetReadDeadline(time.Now().Add(headerTimeout / 2))).To(Succeed())
		_, err := newestToGo.Read(make([]byte, 1))
		Expect(err).NotTo(MatchError(os.ErrDeadlineExceeded))
		Eventually(ended.Load).Should(BeEquivalentTo(held), "who says nothing is cut off")
	})

	It("waits for an address that is taken, and says so once", func() {
		other, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		defer serve(other.Addr().String())()
		Eventually(log.String).Should(ContainSubstring("Metrics and health server failed; retrying"))
		// Long enough for a second attempt.
		Consistently(func() int { return strings.Count(log.String(), "\n") }, "1500ms").Should(Equal(1))
		Expect(other.Close()).To(Succeed())
		Eventually(status).WithArguments("http://" + other.Addr().String() + "/healthz").Should(BeEquivalentTo(200))
		Expect(log.String()).To(ContainSubstring("Metrics and health server is listening again"))
	})
})

func TestAManagerIsAlive(t *testing.T) {
	slow := func(w *world) {
		delay := func() error { time.Sleep(callTimeout - time.Millisecond); return nil } //nolint:forbidigo // In a synctest bubble this takes no time.
		w.headscale.failList, w.headscale.failCreate, w.headscale.failExpire = delay, delay, delay
		w.secrets.fail = func(verb string, _ *corev1.Secret) error {
			if verb == "watch" {
				return nil
			}
			return delay()
		}
	}
	for name, arrange := range map[string]func(w *world){
		"at rest":                     func(*world) {},
		"while Headscale is away":     func(w *world) { w.headscale.failList = func() error { return headscale.ErrUnavailable } },
		"while the API server is":     func(w *world) { w.secrets.fail = func(string, *corev1.Secret) error { return errKubernetes } },
		"while every call is so slow": slow,
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, rotation.Settings{Expiration: 20 * time.Minute, RotationBuffer: 10 * time.Minute}, func(w *world) {
				arrange(w)
				w.poll = pollInterval
				w.start()
				for range 4 * 30 {
					w.pass(15 * time.Second)
					w.Expect(w.manager.Alive()).To(Succeed())
				}
			})
		})
	}
}

func TestAManagerThatHangsIsNotAlive(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.Expect(New(Config{Clock: time.Now}).Alive()).To(MatchError(errNotStarted))
		hanging := make(chan struct{})
		w.start().pass(30 * time.Minute)
		w.headscale.set(func() { w.headscale.failList = func() error { <-hanging; return nil } })
		w.pass(31*time.Minute + stuckAfter)
		w.Expect(w.manager.Alive()).To(MatchError(MatchRegexp(`^the API Key Manager has been stuck for \d+m\d+s: its last activity was at 20\S+Z$`)))
		close(hanging)
		w.pass(time.Second)
		w.Expect(w.manager.Alive()).To(Succeed())
	})
}
