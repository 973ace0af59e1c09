package adminserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

var _ = Describe("An attacker", func() {
	var s *site
	var fake *headscaletest.Server
	BeforeEach(func() {
		s = newSite(headscale.TransportHTTP)
		fake = s.fake(headscaletest.V030)
	})

	// raw sends bytes over TLS and returns the beginning of the answer, or nothing where there is none
	// shortly before requestTimeout.
	raw := func(text string) string {
		GinkgoHelper()
		conn, err := (&tls.Dialer{Config: s.tlsConfig("http/1.1")}).DialContext(context.Background(), "tcp", s.address)
		Expect(err).NotTo(HaveOccurred())
		defer func() { _ = conn.Close() }()
		Expect(conn.SetDeadline(time.Now().Add(requestTimeout - 5*time.Second))).To(Succeed())
		_, _ = io.WriteString(conn, text) // An early answer ends the connection.
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimSpace(line)
	}
	const get, auth, end = "GET /api/v1/apikey HTTP/1.1\r\nHost: a\r\n", "Authorization: Bearer " + validKey + "\r\n", "\r\n"

	DescribeTable("is refused without the key", func(header string) {
		Expect(raw(get + header + end)).To(Equal("HTTP/1.1 401 Unauthorized"))
		Expect(fake.Calls(headscaletest.List)).To(BeZero())
	},
		Entry("none", ""),
		Entry("an empty one", "Authorization:\r\n"),
		Entry("no key", "Authorization: Bearer\r\n"),
		Entry("an empty key", "Authorization: Bearer \r\n"),
		Entry("another", "Authorization: Bearer hskey-api-AAAAAAAAAAAA-x\r\n"),
		Entry("its prefix", "Authorization: Bearer AAAAAAAAAAAA\r\n"),
		Entry("as basic authentication", "Authorization: Basic "+validKey+"\r\n"),
		Entry("two, one of them valid", auth+"Authorization: Bearer x\r\n"),
		Entry("in another header", "X-Authorization: Bearer "+validKey+"\r\n"),
		Entry("with more behind it", "Authorization: Bearer "+validKey+" x\r\n"),
	)

	DescribeTable("reaches nothing but the admin API", func(request string) {
		Expect(raw(request + " HTTP/1.1\r\nHost: a\r\n" + auth + end)).To(MatchRegexp(`^HTTP/1\.1 40[04] `))
		Expect(fake.Calls(headscaletest.List)).To(BeZero())
	},
		Entry("the root", "GET /"),
		Entry("the metrics", "GET /metrics"),
		Entry("a debug page", "GET /debug/pprof/"),
		Entry("a longer word", "GET /api/v1x/apikey"),
		Entry("dots", "GET /api/v1/../../metrics"),
		Entry("encoded dots", "GET /api/v1/%2e%2e/%2e%2e/metrics"),
		Entry("encoded slashes", "GET /api/v1/..%2f..%2fmetrics"),
		Entry("an encoded prefix", "GET /%61pi/v1/apikey"),
		Entry("two slashes", "GET //api/v1/apikey"),
		Entry("a backslash", `GET /api/v1/..\metrics`),
		Entry("a line's end", "GET /api/v1/a%0d%0ab"),
		Entry("a tunnel", "CONNECT a:80"),
		Entry("a trace", "TRACE /api/v1/apikey"),
		Entry("the server", "OPTIONS *"),
		Entry("gRPC over HTTP/1.1", "POST /headscale.v1.HeadscaleService/ListApiKeys"),
	)

	It("upgrades no connection", func() {
		Expect(raw(get + auth + "Connection: Upgrade\r\nUpgrade: websocket\r\n" + end)).To(Equal("HTTP/1.1 404 Not Found"))
	})

	DescribeTable("smuggles no request", func(header string) {
		Expect(raw("POST /api/v1/apikey HTTP/1.1\r\nHost: a\r\n" + auth + header + end + "0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n")).To(MatchRegexp(`^HTTP/1\.1 (400|501) `))
		Expect(fake.Calls(headscaletest.Create)).To(BeZero())
	},
		Entry("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
		Entry("an encoding that is none", "Transfer-Encoding: xchunked\r\n"),
		Entry("two encodings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
		Entry("a length with a sign", "Content-Length: +5\r\n"),
	)

	It("finds no older TLS, and no clear text", func() {
		config := s.tlsConfig()
		config.MaxVersion = tls.VersionTLS12
		_, err := tls.Dial("tcp", s.address, config)
		Expect(err).To(MatchError(ContainSubstring("protocol version")))
		response, err := http.Get("http://" + s.address + "/api/v1/apikey")
		Expect(err).NotTo(HaveOccurred())
		Expect(response.Body.Close()).To(Succeed())
		Expect(response.StatusCode).To(Equal(400))
		http.DefaultClient.CloseIdleConnections()
	})

	It("sends no huge header", func() {
		Expect(raw(get + auth + "X: " + strings.Repeat("a", 2*maxHeaderBytes) + "\r\n" + end)).To(HavePrefix("HTTP/1.1 431 "))
	})

	It("sends no huge body, with its length and without", func() {
		Expect(raw("POST /api/v1/apikey HTTP/1.1\r\nHost: a\r\n" + auth + "Content-Length: 4194305\r\n" + end)).To(HavePrefix("HTTP/1.1 413 "))
		for _, http2 := range []bool{false, true} {
			endless := io.LimitReader(neverending('a'), maxBodyBytes+1)
			response, err := s.client(http2).Do(s.request("PUT", "/api/v1/policy", endless))
			if err == nil { // else the connection was cut off first
				Expect(response.Body.Close()).To(Succeed())
				Expect(response.StatusCode).To(Equal(413))
			}
		}
	})

	It("is told at once that its key is wrong, however slow its body is", func() {
		Expect(raw("POST /api/v1/apikey HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n" + end)).To(HavePrefix("HTTP/1.1 401 "))
	})

	It("is cut off when its header is slow", func() {
		began := time.Now()
		Expect(raw(get + "X: ")).To(BeEmpty())
		Expect(time.Since(began)).To(BeNumerically("<", requestTimeout-10*time.Second), "raw gives up later")
	})

	It("keeps nobody out with 200 connections, and cuts off nobody with a key", func(ctx SpecContext) {
		client := s.client(false)
		code, _ := do(client, s.request("GET", "/api/v1/apikey", nil))
		Expect(code).To(Equal(200))
		for range 200 {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(conn.Close)
		}
		code, _ = do(client, s.request("GET", "/api/v1/apikey", nil))
		Expect(code).To(Equal(200), "a connection that has shown a key")
		code, _ = do(s.client(true), s.request("GET", "/api/v1/apikey", nil))
		Expect(code).To(Equal(200), "a new connection")
	})
})

// neverending is a body without an end.
type neverending byte

func (n neverending) Read(into []byte) (int, error) {
	for i := range into {
		into[i] = byte(n)
	}
	return len(into), nil
}
