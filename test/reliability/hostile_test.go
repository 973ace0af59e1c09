package reliability_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/net/http2"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

const sectionHostile = "hostile"

// hostileFor is the environment variable that says how long the slow spec goes on: 1h.
const hostileFor = "RELIABILITY_HOSTILE_FOR"

// containerLimit is the sidecar's memory limit in MiB: defaultManagerResources in
// internal/resources.
const containerLimit = 64

// evil is in all that a hostile server sends, and may be nowhere else. The words with which it
// refuses are quoted in the log, so these have spoken in them instead.
const (
	evil   = "Ev1lT3xt"
	spoken = "sp0kenT3xt"
)

// unprintable are characters that a terminal or a log may take for something else.
const unprintable = "\x1b[31m\x00\u202e\r\n"

// evilKey has the form of a key.
var evilKey = "hskey-api-" + evil + "0123-" + strings.Repeat("x", 64)

var tricks = []trick{
	{name: "garbage for the probe", play: func(v *victim) { v.flood("", evil) }},
	{name: "half a greeting for the probe", play: func(v *victim) { v.flood("HTTP/1.1 200 OK\r\nX: ", evil) }},
	{name: "silence for the probe", play: silence},
	{name: "a probe that ends", play: func(*victim) {}},
	{name: "another protocol", on: headscaletest.List, play: func(v *victim) { v.flood("SSH-2.0-"+evil+"\r\n", evil) }},
	{name: "silence", on: headscaletest.List, play: silence},
	{name: "a slow list", on: headscaletest.List, play: func(v *victim) {
		v.say("200 OK", "", `{"apiKeys":[`)
		v.forever(50*time.Millisecond, func() error { _, err := io.WriteString(v, "{},"); return err })
	}},
	{name: "an endless list", on: headscaletest.List, play: func(v *victim) {
		v.flood("HTTP/1.1 200 OK\r\n\r\n{\"apiKeys\":[", `{"prefix":"`+evil+`"},`)
	}},
	{name: "an endless list in chunks of a byte", on: headscaletest.List, play: func(v *victim) {
		v.flood("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n[\r\n")
	}},
	{name: "empty entries", on: headscaletest.List, play: body(`{"apiKeys":[` + strings.Repeat("{},", 690_000) + `{}]}`)},
	{name: "empty lists in place of one", on: headscaletest.List, play: body(`{"apiKeys":[` + strings.Repeat("[],", 690_000) + `[]]}`)},
	{name: "nested lists", on: headscaletest.List, play: body(strings.Repeat("[", 2<<20-1))},
	{name: "nested objects", on: headscaletest.List, play: body(strings.Repeat(`{"apiKeys":`, 180_000))},
	{name: "many lists of one name", on: headscaletest.List, play: body("{" + strings.Repeat(`"apiKeys":[{},{},{}],`, 90_000) + `"apiKeys":[]}`)},
	{name: "as many keys as there may be", on: headscaletest.List, play: body(`{"apiKeys":[` + strings.TrimSuffix(strings.Repeat(`{"id":"1","prefix":"Ev1lT3xt0123","expiration":"2999-01-01T00:00:00Z","createdAt":null},`, 20_000), ",") + `]}`)},
	{name: "a text that is everything", on: headscaletest.List, play: body(`{"apiKeys":[{"prefix":"` + strings.Repeat(evil, 250_000) + `"}]}`)},
	{name: "prefixes that are none", on: headscaletest.List, play: body(marshal(map[string]any{"apiKeys": []map[string]string{
		{"id": "1", "prefix": evil + unprintable}, {"id": "2", "prefix": evil + "@2020-01-01T00:00:00Z,x"}, {"id": "3", "prefix": strings.Repeat(evil, 99)},
		{"id": "4", "prefix": "", "expiration": "0000-01-01T00:00:00Z"},
	}}))},
	{name: "a strange status", on: headscaletest.List, play: func(v *victim) { _, _ = io.WriteString(v, "HTTP/1.1 "+evil+" "+evil+"\r\n\r\n") }},
	{name: "a strange header", on: headscaletest.List, play: func(v *victim) { v.say("200 OK", evil+" "+evil+"\r\n", "{}") }},
	{name: "endless headers", on: headscaletest.List, play: func(v *victim) { v.flood("HTTP/1.1 200 OK\r\n", "X-"+evil+": "+evil+"\r\n") }},
	{name: "an endless header", on: headscaletest.List, play: func(v *victim) { v.flood("HTTP/1.1 200 OK\r\nX: ", evil) }},
	{name: "endless news", on: headscaletest.List, play: func(v *victim) { v.flood("", "HTTP/1.1 103 Early Hints\r\nLink: <"+evil+">\r\n\r\n") }},
	{name: "endless trailers", on: headscaletest.List, play: func(v *victim) {
		v.flood("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", "X-"+evil+": "+evil+"\r\n")
	}},
	{name: "a redirection", on: headscaletest.List, play: func(v *victim) {
		v.say("307 Temporary Redirect", "Location: http://127.0.0.1:1/"+evil+"\r\n", "")
	}},
	{name: "something compressed", on: headscaletest.List, play: func(v *victim) { v.flood("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08", "\x00\x00") }},
	{name: "a refusal with many words", on: headscaletest.List, play: func(v *victim) {
		_, _ = io.WriteString(v, "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/problem+json\r\n\r\n"+
			`{"errors":[`+strings.Repeat(`{"message":"`+evil+`"},`, 80_000)+`{}]}`)
	}},
	{name: "a refusal with strange words", on: headscaletest.List, play: func(v *victim) {
		_, _ = io.WriteString(v, "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/problem+json\r\n\r\n"+
			marshal(map[string]string{"detail": unprintable + spoken + evilKey + "\nlevel=INFO " + unprintable}))
	}},
	{name: "a key with a line of its own", on: headscaletest.Create, play: body(marshal(map[string]string{"apiKey": evilKey + "\n" + evil}))},
	{name: "a key with control characters", on: headscaletest.Create, play: body(marshal(map[string]string{"apiKey": evilKey + unprintable}))},
	{name: "a key that is everything", on: headscaletest.Create, play: body(`{"apiKey":"` + strings.Repeat(evil, 250_000) + `"}`)},
	{name: "a key of a strange form", on: headscaletest.Create, play: body(`{"apiKey":"` + evil + `"}`)},
	{name: "a list in place of a key", on: headscaletest.Create, play: body(`{"apiKey":[` + strings.Repeat(`"`+evil+`",`, 100_000) + `""]}`)},

	{name: "gRPC: silence", grpc: true, on: headscaletest.List, play: silence},
	{name: "gRPC: endless headers", grpc: true, on: headscaletest.List, play: func(v *victim) {
		fields := block([]string{":status", "200", "content-type", "application/grpc"})
		_ = v.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields})
		more := block([]string{"x-" + strings.ToLower(evil), strings.Repeat(evil, 1000)})
		v.forever(0, func() error { return v.framer.WriteContinuation(1, false, more) })
	}},
	{name: "gRPC: large headers", grpc: true, on: headscaletest.List, play: func(v *victim) { v.headers("x-evil", strings.Repeat(evil, 1800)) }},
	{name: "gRPC: large trailers", grpc: true, on: headscaletest.List, play: func(v *victim) {
		v.headers()
		v.message(nil)
		v.trailers("grpc-status", "0", "x-evil", strings.Repeat(evil, 1800))
	}},
	{name: "gRPC: empty entries", grpc: true, on: headscaletest.List, play: messageOf([]byte(strings.Repeat("\x0a\x00", 1<<20-8)))},
	{name: "gRPC: groups in groups", grpc: true, on: headscaletest.List, play: messageOf([]byte(strings.Repeat("\x0b", 2<<20-8)))},
	{name: "gRPC: no protobuf", grpc: true, on: headscaletest.List, play: messageOf([]byte(strings.Repeat(evil, 200_000)))},
	{name: "gRPC: a message of four gigabytes", grpc: true, on: headscaletest.List, play: func(v *victim) { v.headers(); v.announce(1<<32 - 1); silence(v) }},
	{name: "gRPC: a message in frames of a byte", grpc: true, on: headscaletest.List, play: func(v *victim) {
		v.headers()
		v.announce(2<<20 - 8)
		v.flood("", "\x00\x00\x01\x00\x00\x00\x00\x00\x01\x0a")
	}},
	{name: "gRPC: empty frames", grpc: true, on: headscaletest.List, play: func(v *victim) { v.headers(); v.flood("", "\x00\x00\x00\x00\x00\x00\x00\x00\x01") }},
	{name: "gRPC: settings without end", grpc: true, on: headscaletest.List, play: func(v *victim) { v.flood("", "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00") }},
	{name: "gRPC: pings without end", grpc: true, on: headscaletest.List, play: func(v *victim) { v.flood("", "\x00\x00\x08\x06\x00\x00\x00\x00\x00"+evil) }},
	{name: "gRPC: a compressed message", grpc: true, on: headscaletest.List, play: func(v *victim) {
		v.headers("grpc-encoding", "gzip")
		v.flood("", "\x00\x00\x0d\x00\x00\x00\x00\x00\x01\x01\x00\x00\x00\x08"+"\x1f\x8b\x08\x00\x00\x00\x00\x00")
	}},
	{name: "gRPC: go away", grpc: true, on: headscaletest.List, play: func(v *victim) { _ = v.framer.WriteGoAway(0, 0, []byte(strings.Repeat(evil, 1000))) }},
	{name: "gRPC: a refusal with strange words", grpc: true, on: headscaletest.List, play: func(v *victim) {
		v.headers()
		v.trailers("grpc-status", "2", "grpc-message", "%1b[31m%0a"+spoken+evilKey+"%e2%80%ae"+strings.Repeat("x", 5000))
	}},
	{name: "gRPC: another type of content", grpc: true, on: headscaletest.List, play: func(v *victim) {
		v.headers("content-type", spoken+"/html")
		v.message([]byte(spoken + unprintable))
		v.trailers("grpc-status", spoken)
	}},
	{name: "gRPC: a key with a line of its own", grpc: true, on: headscaletest.Create, play: func(v *victim) {
		v.headers()
		text := evilKey + "\n" + evil
		v.message(append([]byte{0x0a, byte(len(text))}, text...))
		v.trailers("grpc-status", "0")
	}},
}

func silence(v *victim) { <-v.over }

// body answers with a body over HTTP.
func body(content string) func(v *victim) {
	return func(v *victim) { v.say("200 OK", "Connection: close\r\n", content) }
}

// messageOf answers with a message over gRPC.
func messageOf(content []byte) func(v *victim) {
	return func(v *victim) {
		v.headers()
		v.message(content)
		v.trailers("grpc-status", "0")
	}
}

func marshal(value any) string {
	content, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(content)
}

// hostility is a manager with a hostile server on its socket.
type hostility struct {
	*world
	server *hostileServer
	// address is where the manager serves its metrics, and held the connections that are held
	// open there.
	address string
	held    []net.Conn
	// peak is the largest resident set of all its processes, in MiB.
	peak float64
}

var _ = Describe("With a Headscale that was taken over on its socket, a manager", func() {
	It("stays below its memory limit and shows nothing of what it says", func(ctx SpecContext) {
		h := newHostility(ctx)
		for i := range tricks {
			h.endures(ctx, &tricks[i], 100*time.Millisecond)
		}
		h.recovers(ctx, len(tricks))
	})

	It("does so for as long as "+hostileFor+" says, two minutes by default", Label(slow), func(ctx SpecContext) {
		length, err := time.ParseDuration(cmp.Or(os.Getenv(hostileFor), "2m"))
		Expect(err).NotTo(HaveOccurred())
		h := newHostility(ctx)
		played, until := 0, time.Now().Add(length)
		for ; time.Now().Before(until); played++ {
			h.endures(ctx, &tricks[rand.IntN(len(tricks))], rand.N(5*time.Second))
		}
		h.recovers(ctx, played)
	}, NodeTimeout(2*time.Hour))
})

func newHostility(ctx context.Context) *hostility {
	GinkgoHelper()
	h := &hostility{world: newWorld(ctx, freshHeadscale(ctx, contractServer), faulty)}
	h.server = &hostileServer{path: filepath.Join(h.dir, "hostile.sock"), headscale: h.socket}
	DeferCleanup(h.server.stop)
	DeferCleanup(h.leave)
	h.socket = h.server.path
	var err error
	h.address, err = env.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	h.server.set(&tricks[0])
	h.restart(ctx)
	return h
}

// restart starts the manager anew, whose next attempt to create a key has not to wait then.
func (h *hostility) restart(ctx context.Context) {
	GinkgoHelper()
	h.kill()
	h.run(append([]string{"--metrics-bind-address=" + h.address}, calm...)...)
	h.crowd(ctx)
}

// crowd holds connections to the manager's port open, with and without a beginning of a request.
func (h *hostility) crowd(ctx context.Context) {
	h.leave()
	for i := range 100 {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.address)
		if err != nil {
			return // It does not listen yet.
		}
		_, _ = io.WriteString(conn, []string{"", "GET /metrics HTTP/1.1\r\nX-" + evil + ": ", "GET /" + evil}[i%3])
		h.held = append(h.held, conn)
	}
}

// leave closes what is held open.
func (h *hostility) leave() {
	for _, conn := range h.held {
		_ = conn.Close()
	}
	h.held = nil
}

// endures plays a trick until it has been played once, and for a while longer.
func (h *hostility) endures(ctx context.Context, t *trick, dwell time.Duration) {
	GinkgoHelper()
	By(t.name)
	h.server.set(t)
	if t.on == headscaletest.Create {
		h.deleteSecret(ctx)
		h.restart(ctx)
	}
	Eventually(ctx, h.server.struck).Should(BeNumerically(">", 0), t.name)
	Consistently(ctx, h.manager.Running).WithTimeout(dwell).WithPolling(dwell / 4).Should(BeTrue())
	now := peakOf(h.manager)
	if now > h.peak {
		h.peak = now
		AddReportEntry(fmt.Sprintf("%.1f MiB after %s", now, t.name))
	}
	Expect(now).To(BeNumerically("<", containerLimit), t.name)
	h.crowd(ctx)
	h.expectNothingOf(ctx)
}

// peakOf is the largest resident set of a process, in MiB. It counts the program itself, which
// a container's limit does not when memory is short.
func peakOf(p *process.Process) float64 {
	GinkgoHelper()
	usage, err := p.Usage()
	Expect(err).NotTo(HaveOccurred())
	return usage.Peak
}

// expectNothingOf looks for what the server said.
func (h *hostility) expectNothingOf(ctx context.Context) {
	GinkgoHelper()
	var secrets corev1.SecretList
	Expect(admin.List(ctx, &secrets, client.InNamespace(h.namespace))).To(Succeed())
	var events corev1.EventList
	Expect(admin.List(ctx, &events, client.InNamespace(h.namespace))).To(Succeed())
	Expect(events.Items).To(BeEmpty())
	shown := marshal(secrets.Items)
	for _, secret := range secrets.Items {
		shown += string(secret.Data["api-key"])
	}
	for _, path := range []string{"/metrics", "/healthz"} {
		shown += h.read(path)
	}
	Expect(shown).NotTo(Or(ContainSubstring(evil), ContainSubstring(spoken)))
	said := h.printed.String()
	Expect(said).NotTo(ContainSubstring(evil + "0123-x"))
	Expect(strings.ReplaceAll(said, "hskey-api-"+evil+"0123-***", "")).NotTo(ContainSubstring(evil))
	Expect(said).To(MatchRegexp(`^(time=[ -~…]*\n)*$`), "a line of its own, or a control character")
	for line := range strings.Lines(said) {
		if strings.Contains(line, "Headscale refused with") {
			Expect(len(line)).To(BeNumerically("<", 500), "200 bytes of its words, and ours")
		}
	}
}

// read is what the manager serves.
func (h *hostility) read(path string) (served string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		response, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + h.address + path)
		g.Expect(err).NotTo(HaveOccurred())
		defer func() { _ = response.Body.Close() }()
		g.Expect(response.StatusCode).To(Equal(http.StatusOK))
		content, err := io.ReadAll(response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		served = string(content)
	}).Should(Succeed())
	return served
}

// recovers gives the socket back to Headscale.
func (h *hostility) recovers(ctx context.Context, played int) {
	GinkgoHelper()
	h.server.set(nil)
	h.restart(ctx)
	h.heals(ctx)
	note(observation{Section: sectionHostile, Failure: fmt.Sprintf("%d tricks of a Headscale that was taken over", played), Headscale: contractServer,
		Times: played, Note: fmt.Sprintf("at most %.1f MiB", h.peak)})
	GinkgoWriter.Printf("at most %.1f MiB after %d tricks\n", h.peak, played)
}
