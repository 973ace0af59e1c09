package integration_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/process"
)

const (
	// sidecarMemoryLimit is that of the API Key Manager's container, in MiB.
	sidecarMemoryLimit = 64
	// grpcList is a call of Headscale's admin API.
	grpcList = "/headscale.v1.HeadscaleService/ListUsers"
	// attackTime bounds an attack that has no end of its own.
	attackTime = 5 * time.Second
)

// attacked is an admin endpoint with a client that has the key, and asks all the time.
type attacked struct {
	hs      *server
	address string
	key     string
	pin     headscale.Pin
	sidecar *process.Process

	client   *headscale.Client
	stop     context.CancelFunc
	done     sync.WaitGroup
	asked    atomic.Int64
	mu       sync.Mutex
	failures []error
	slowest  time.Duration
}

// newAttacked starts a Headscale with its sidecar, and the client.
func newAttacked(ctx context.Context) *attacked {
	GinkgoHelper()
	namespace := newNamespace(ctx)
	a := &attacked{hs: runPod(namespace, "headscale")}
	apply(ctx, namespace, shortestManifest)
	a.hs.awaitReady(ctx)
	secret := a.hs.awaitRest(ctx, secretName)
	a.key, a.address, a.sidecar = keyOf(secret), a.hs.pod.Address(containerManager, "apikey-admin"), a.hs.pod.Process(containerManager)
	var err error
	a.pin, err = headscale.ParsePin(secret.Annotations[v1beta1.AnnotationAdminCertificate])
	Expect(err).NotTo(HaveOccurred())
	a.client = headscale.NewClient(headscale.AdminEndpoint(a.address, a.pin), headscale.WithBearerToken(headscale.NewKey(a.key)), headscale.WithKeepAlive(), headscale.WithCallTimeout(time.Minute))
	DeferCleanup(a.client.Close)
	return a
}

// ask has the client ask until the returned function is called.
func (a *attacked) ask() (end func()) {
	var ctx context.Context
	ctx, a.stop = context.WithCancel(context.Background())
	a.done.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				a.askOnce()
			}
		}
	})
	return func() { a.stop(); a.done.Wait() }
}

func (a *attacked) askOnce() {
	began := time.Now()
	_, err := a.client.ListUsers(context.Background())
	a.asked.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.slowest = max(a.slowest, time.Since(began))
	if err != nil {
		a.failures = append(a.failures, err)
	}
}

// tlsConfig is that of a client that believes any certificate.
func tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
}

// dial connects to the endpoint over TLS.
func (a *attacked) dial(ctx context.Context, protocols ...string) *tls.Conn {
	GinkgoHelper()
	conn, err := (&tls.Dialer{Config: tlsConfig(protocols...)}).DialContext(ctx, "tcp", a.address)
	Expect(err).NotTo(HaveOccurred())
	secured, ok := conn.(*tls.Conn)
	Expect(ok).To(BeTrue())
	Expect(secured.SetDeadline(time.Now().Add(2 * attackTime))).To(Succeed())
	DeferCleanup(func() { _ = secured.Close() })
	return secured
}

// status asks over HTTP/1.1, and returns the status of the answer; 0: there is none.
func (a *attacked) status(ctx context.Context, method, path, key string, body io.Reader) int {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, method, "https://"+a.address+path, body)
	Expect(err).NotTo(HaveOccurred())
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig(), DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0
	}
	Expect(response.Body.Close()).To(Succeed())
	return response.StatusCode
}

// wire is a connection over HTTP/2, frame by frame.
type wire struct {
	conn    *tls.Conn
	framer  *http2.Framer
	ended   chan struct{}
	ids     uint32
	refused atomic.Int64
	goAway  atomic.Int64
	// answers counts answers, and streams that were ended otherwise.
	answers atomic.Int64
}

// wire opens a connection whose other side is read all the time.
func (a *attacked) wire(ctx context.Context, settings ...http2.Setting) *wire {
	GinkgoHelper()
	w := &wire{conn: a.dial(ctx, "h2"), ended: make(chan struct{}), ids: 1}
	_, err := io.WriteString(w.conn, http2.ClientPreface)
	Expect(err).NotTo(HaveOccurred())
	w.framer = http2.NewFramer(w.conn, w.conn)
	Expect(w.framer.WriteSettings(settings...)).To(Succeed())
	go func() {
		defer close(w.ended)
		for {
			frame, err := w.framer.ReadFrame()
			switch frame := frame.(type) {
			case *http2.HeadersFrame:
				w.answers.Add(1)
			case *http2.RSTStreamFrame:
				w.answers.Add(1)
				if frame.ErrCode == http2.ErrCodeRefusedStream {
					w.refused.Add(1)
				}
			case *http2.GoAwayFrame:
				w.goAway.Add(1)
			}
			if err != nil {
				return
			}
		}
	}()
	return w
}

// wires opens connections before any of them attacks: the endpoint waits for a handshake for five seconds.
func (a *attacked) wires(ctx context.Context, number int) (all []*wire) {
	GinkgoHelper()
	for range number {
		all = append(all, a.wire(ctx))
	}
	return all
}

// headers are those of a call, in a compressed block.
func (a *attacked) headers(key string, more ...hpack.HeaderField) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: a.address}, {Name: ":path", Value: grpcList},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}, {Name: "authorization", Value: "Bearer " + key},
	}, more...) {
		_ = encoder.WriteField(field) // into memory
	}
	return block.Bytes()
}

// next is the id of another stream.
func (w *wire) next() uint32 {
	w.ids += 2
	return w.ids - 2
}

// until does something again and again, until it fails, the connection ends or the attack is over.
func (w *wire) until(do func() error) (times int) {
	for end := time.Now().Add(attackTime); time.Now().Before(end); times++ {
		select {
		case <-w.ended:
			return times
		default:
		}
		if do() != nil {
			return times
		}
	}
	return times
}

var _ = Describe("The admin endpoint of a real Headscale", Ordered, func() {
	var a *attacked
	var end func()
	var began process.Usage
	var slow *wire
	var slowSince time.Time

	BeforeAll(func(ctx SpecContext) {
		a = newAttacked(ctx)
		var err error
		began, err = a.sidecar.Usage()
		Expect(err).NotTo(HaveOccurred())
		slow, slowSince = a.wire(ctx), time.Now()
		Expect(slow.conn.SetDeadline(time.Time{})).To(Succeed())
		id := slow.next()
		Expect(slow.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.headers(a.key), EndHeaders: true})).To(Succeed())
		Expect(slow.framer.WriteData(id, false, []byte{0})).To(Succeed())
	})
	BeforeEach(func() { end = a.ask() })
	AfterEach(func() {
		end()
		a.mu.Lock()
		defer a.mu.Unlock()
		Expect(a.failures).To(BeEmpty(), "the client with the key")
		usage, err := a.sidecar.Usage()
		Expect(err).NotTo(HaveOccurred())
		AddReportEntry(fmt.Sprintf("RSS %.1f MiB, at most %.1f MiB, at first %.1f MiB; the client asked %d times, and waited %s at most",
			usage.Resident, usage.Peak, began.Resident, a.asked.Load(), a.slowest.Round(time.Millisecond)))
		Expect(usage.Peak).To(BeNumerically("<", sidecarMemoryLimit))
		Expect(a.hs.pod.Process(containerManager)).To(BeIdenticalTo(a.sidecar), "it has not ended")
		Expect(a.sidecar.Running()).To(BeTrue())
		a.slowest = 0
	})

	It("refuses wrong keys, clear text and older TLS", func(ctx SpecContext) {
		for range 200 {
			Expect(a.status(ctx, "GET", "/api/v1/user", "hskey-api-AAAAAAAAAAAA-"+strings.Repeat("x", 64), nil)).To(Equal(401))
		}
		for _, key := range []string{"", a.key[:len(a.key)-1], a.key + "x", strings.ToUpper(a.key)} {
			Expect(a.status(ctx, "GET", "/api/v1/user", key, nil)).To(Equal(401))
		}
		old := tlsConfig()
		old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS12
		_, err := (&tls.Dialer{Config: old}).DialContext(ctx, "tcp", a.address)
		Expect(err).To(MatchError(ContainSubstring("protocol version")))
		response, err := new(http.Transport).RoundTrip(must(http.NewRequestWithContext(ctx, "GET", "http://"+a.address+"/api/v1/user", http.NoBody)))
		Expect(err).NotTo(HaveOccurred())
		Expect(response.Body.Close()).To(Succeed())
		Expect(response.StatusCode).To(Equal(400))
		for range 200 { // what is no handshake
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", a.address)
			Expect(err).NotTo(HaveOccurred())
			_, _ = conn.Write(bytes.Repeat([]byte{0x16, 0x03, 0x01, 0xff}, 4096))
			Expect(conn.Close()).To(Succeed())
		}
	})

	It("serves no other path", func(ctx SpecContext) {
		for _, path := range []string{"/", "/metrics", "/debug/pprof/", "/api/v1/../../metrics", "/api/v1/%2e%2e/metrics", "//api/v1/user", "/healthz", "/headscale.v1.HeadscaleService/", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
			Expect(a.status(ctx, "GET", path, a.key, nil)).To(Equal(404), path)
		}
		Expect(a.status(ctx, "GET", "/api/v1/user", a.key, nil)).To(Equal(421), "this Headscale speaks gRPC")
	})

	It("takes no huge header and no huge body", func(ctx SpecContext) {
		for range 20 {
			conn := a.dial(ctx, "http/1.1")
			_, _ = io.WriteString(conn, "GET /api/v1/user HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("a", 1<<20)+"\r\n\r\n")
			answer, _ := io.ReadAll(conn)
			Expect(len(answer) == 0 || strings.HasPrefix(string(answer), "HTTP/1.1 431")).To(BeTrue(), "%.40q", answer)
		}
		var group sync.WaitGroup
		for _, w := range a.wires(ctx, 16) {
			group.Go(func() {
				id := w.next()
				_ = w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.headers(a.key), EndHeaders: true})
				w.until(func() error { return w.framer.WriteData(id, false, make([]byte, 16<<10)) })
				_ = w.conn.Close()
			})
		}
		group.Wait()
	})

	It("holds on to nobody who is slow with a body, key or not", func(ctx SpecContext) {
		for i := range 24 {
			conn := a.dial(ctx, "http/1.1")
			key := a.key
			if i%2 == 0 {
				key = "wrong"
			}
			_, err := io.WriteString(conn, "POST /api/v1/user HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+key+"\r\nContent-Length: 4000000\r\n\r\n{")
			Expect(err).NotTo(HaveOccurred())
		}
		streams := a.wire(ctx)
		for range 31 {
			Expect(streams.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: streams.next(), BlockFragment: a.headers(a.key), EndHeaders: true})).To(Succeed())
		}
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for id := range 20 {
			<-ticker.C
			if streams.framer.WriteData(uint32(1+2*(id%31)), false, []byte{0}) != nil {
				break
			}
		}
	})

	DescribeTable("survives HTTP/2", func(ctx SpecContext, attack func(ctx context.Context, w *wire, key string) int) {
		var group sync.WaitGroup
		var times, refused, goAway [2]atomic.Int64 // without the key, and with it
		for i, w := range a.wires(ctx, 8) {
			key := []string{"wrong", a.key}[i%2]
			group.Go(func() {
				defer GinkgoRecover()
				times[i%2].Add(int64(attack(ctx, w, key)))
				refused[i%2].Add(w.refused.Load())
				goAway[i%2].Add(w.goAway.Load())
				_ = w.conn.Close()
			})
		}
		group.Wait()
		for i, who := range []string{"without", "with"} {
			AddReportEntry(fmt.Sprintf("%s the key: %d times; refused: %d streams, %d connections", who, times[i].Load(), refused[i].Load(), goAway[i].Load()))
		}
	},
		Entry("rapid reset", func(_ context.Context, w *wire, key string) int {
			block := a.headers(key)
			return w.until(func() error {
				id := w.next()
				return errors.Join(
					w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true}),
					w.framer.WriteRSTStream(id, http2.ErrCodeCancel))
			})
		}),
		Entry("many streams", func(_ context.Context, w *wire, key string) int {
			block := a.headers(key)
			return w.until(func() error {
				return w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: w.next(), BlockFragment: block, EndHeaders: true})
			})
		}),
		Entry("a flood of CONTINUATION", func(_ context.Context, w *wire, key string) int {
			id := w.next()
			if w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.headers(key)}) != nil {
				return 0
			}
			var block bytes.Buffer
			_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("a", 1000), Sensitive: true})
			return w.until(func() error { return w.framer.WriteContinuation(id, false, block.Bytes()) })
		}),
		Entry("a header that grows when it is unpacked", func(_ context.Context, w *wire, key string) int {
			fields := make([]hpack.HeaderField, 4000)
			for i := range fields {
				fields[i] = hpack.HeaderField{Name: "x-a", Value: strings.Repeat("b", 3000)}
			}
			block := a.headers(key, fields...)
			return w.until(func() error {
				return w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: w.next(), BlockFragment: block[:min(len(block), 16<<10)], EndHeaders: true})
			})
		}),
		Entry("floods of PING and SETTINGS", func(_ context.Context, w *wire, _ string) int {
			return w.until(func() error {
				return errors.Join(w.framer.WritePing(false, [8]byte{1}), w.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}))
			})
		}),
		Entry("answers for which there is no room", func(_ context.Context, w *wire, key string) int {
			block := a.headers(key)
			_ = w.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			return w.until(func() error {
				id := w.next()
				return errors.Join(
					w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}),
					w.framer.WriteData(id, true, make([]byte, 5)))
			})
		}),
	)

	It("keeps its client with 33 connections that show the key, and 200 that do not", func(ctx SpecContext) {
		for range 33 {
			conn := a.dial(ctx, "http/1.1")
			_, err := io.WriteString(conn, "GET /api/v1/user HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+a.key+"\r\n\r\n")
			if err == nil {
				_, _ = conn.Read(make([]byte, 100))
			}
		}
		for range 200 {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", a.address)
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(conn.Close)
		}
		before := a.asked.Load()
		Eventually(a.asked.Load).WithContext(ctx).Should(BeNumerically(">", before+20))
	})

	It("passes nothing on that a replaced socket says, and works again with the right one", func(ctx SpecContext) {
		end() // It cannot be served meanwhile.
		path := a.hs.pod.HostPath(containerManager, v1beta1.DefaultSocketPath)
		Expect(os.Rename(path, path+".right")).To(Succeed())
		// The connection that the sidecar has to the right one is kept for a while after a call.
		Eventually(func() error { _, err := a.client.ListUsers(ctx); return err }).WithContext(ctx).WithPolling(6 * time.Second).Should(HaveOccurred())
		for name, serve := range hostileSockets {
			By(name)
			socket, err := new(net.ListenConfig).Listen(ctx, "unix", path)
			Expect(err).NotTo(HaveOccurred())
			go func() {
				for {
					conn, err := socket.Accept()
					if err != nil {
						return
					}
					go serve(conn)
				}
			}()
			client := headscale.NewClient(headscale.AdminEndpoint(a.address, a.pin), headscale.WithBearerToken(headscale.NewKey(a.key)), headscale.WithCallTimeout(attackTime/2))
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					defer GinkgoRecover()
					users, err := client.ListUsers(ctx)
					Expect(err).To(HaveOccurred())
					Expect(users).To(BeEmpty())
				})
			}
			group.Wait()
			Expect(client.Close()).To(Succeed())
			Expect(socket.Close()).To(Succeed())
		}
		Expect(os.Rename(path+".right", path)).To(Succeed())
		Eventually(func() error { _, err := a.client.ListUsers(ctx); return err }).WithContext(ctx).Should(Succeed())
		end = a.ask()
	})

	It("has ended the request of who has the key and never ends its body", func(ctx SpecContext) {
		Eventually(slow.answers.Load).WithContext(ctx).WithTimeout(40 * time.Second).Should(BeNumerically(">", 0))
		AddReportEntry(fmt.Sprintf("seen %s after it began", time.Since(slowSince).Round(time.Second)))
	})

	It("shows no key in its log", func() {
		Expect(a.hs.pod.Log(containerManager)).NotTo(ContainSubstring(a.key[len(a.key)-32:]))
		Expect(strings.Count(a.hs.pod.Log(containerManager), "\n")).To(BeNumerically("<", 100), "lines")
	})
})

var _ = Describe("A key that was replaced", func() {
	for _, delay := range []time.Duration{0, 20 * time.Second} {
		It(fmt.Sprintf("is accepted by the admin endpoint for %s", delay), func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			a := &attacked{hs: runPod(namespace, "headscale")}
			apply(ctx, namespace, strings.Replace(shortestManifest, "spec: {", "spec: {api_key: {revocation_delay: "+delay.String()+"}, ", 1))
			a.hs.awaitReady(ctx)
			old := keyOf(a.hs.awaitRest(ctx, secretName))
			a.address = a.hs.pod.Address(containerManager, "apikey-admin")
			// accepted is whether a key is: HTTP is then refused because this Headscale speaks gRPC.
			accepted := func(key string) bool {
				status := a.status(ctx, "GET", "/api/v1/user", key, nil)
				Expect(status).To(Or(Equal(401), Equal(421)))
				return status == 421
			}
			Expect(accepted(old)).To(BeTrue())
			a.hs.patch(ctx, `{"metadata":{"annotations":{"`+v1beta1.AnnotationRotateRequestedAt+`":"now"}}}`)
			key := keyOf(a.hs.awaitKey(ctx, secretName, old))
			stored := time.Now()
			Expect(accepted(key)).To(BeTrue(), "as soon as it is in the Secret")
			if delay > 0 {
				Expect(accepted(old)).To(BeTrue())
			}
			Eventually(func() bool { return accepted(old) }).WithContext(ctx).Should(BeFalse())
			AddReportEntry(fmt.Sprintf("refused %s after the new key was seen", time.Since(stored).Round(time.Millisecond)))
			Expect(accepted(key)).To(BeTrue())
		})
	}
})

// hostileSockets are what somebody answers who replaced Headscale's socket.
var hostileSockets = map[string]func(net.Conn){
	"nothing":       func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) },
	"a hangup":      func(conn net.Conn) { _ = conn.Close() },
	"endless noise": func(conn net.Conn) { flood(conn, bytes.Repeat([]byte("noise"), 10_000)) },
	"endless header": func(conn net.Conn) {
		flood(conn, slices.Concat([]byte("HTTP/1.1 200 OK\r\nX: "), make([]byte, 50_000)))
	},
	"endless frames": func(conn net.Conn) {
		framer := http2.NewFramer(conn, conn)
		_ = framer.WriteSettings()
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		for framer.WriteData(1, false, make([]byte, 16<<10)) == nil {
		}
	},
}

// flood writes until the other side has had enough.
func flood(conn net.Conn, text []byte) {
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	for {
		if _, err := conn.Write(text); err != nil {
			return
		}
	}
}

// must returns a value that cannot fail.
func must[T any](value T, err error) T {
	GinkgoHelper()
	Expect(err).NotTo(HaveOccurred())
	return value
}
