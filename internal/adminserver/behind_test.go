package adminserver

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

var _ = Describe("Headscale behind the endpoint", func() {
	It("gets no key, and its trailers and streams pass", func() {
		s := newSite(headscale.TransportGRPC)
		next := make(chan struct{})
		s.behind(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" || r.Host != "localhost" || r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
				w.WriteHeader(http.StatusTeapot)
			}
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = io.WriteString(w, "first")
			_ = http.NewResponseController(w).Flush()
			<-next
			_, _ = io.WriteString(w, "second")
			w.Header().Set("Grpc-Status", "7")
		})
		request := s.request("POST", grpcPath+"ListApiKeys", strings.NewReader("x"))
		request.Header.Set("Te", "trailers")
		response, err := s.client(true).Do(request)
		Expect(err).NotTo(HaveOccurred())
		defer func() { _ = response.Body.Close() }()
		Expect(response.StatusCode).To(Equal(200))
		first := make([]byte, 5)
		Expect(io.ReadFull(response.Body, first)).To(Equal(5))
		close(next)
		Expect(io.ReadAll(response.Body)).To(BeEquivalentTo("second"))
		Expect(response.Trailer.Get("Grpc-Status")).To(Equal("7"))
	})

	It("may be away, be started again, and be of another release", func() {
		s := newSite(headscale.TransportHTTP)
		client := s.client(false)
		code, _ := do(client, s.request("GET", "/api/v1/apikey", nil))
		Expect(code).To(Equal(http.StatusBadGateway))
		code, _ = do(client, s.request("GET", "/api/v1/apikey", nil))
		Expect(code).To(Equal(http.StatusBadGateway))
		Expect(s.log.lines()).To(Equal(1), s.log)

		fake := s.fake(headscaletest.V030)
		code, _ = do(client, s.request("GET", "/api/v1/apikey", nil))
		Expect(code).To(Equal(200))
		fake.Crash()
		Expect(fake.Start()).To(Succeed())
		code, _ = do(client, s.request("GET", "/api/v1/apikey", nil))
		Expect(code).To(Equal(200))
		Expect(s.log.lines()).To(Equal(2), s.log)

		fake.Stop()
		fake.SetRelease(headscaletest.V028)
		Expect(fake.Start()).To(Succeed())
		code, _ = do(client, s.request("GET", "/api/v1/apikey", nil))
		Expect(code).To(Equal(http.StatusBadGateway))
	})

	for what, says := range map[string]func(net.Conn){
		"nothing": func(net.Conn) {},
		"the beginning of an answer": func(conn net.Conn) {
			framer := http2.NewFramer(conn, conn)
			_ = framer.WriteSettings()
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0x88}}) // :status 200
		},
	} {
		It("is asked again once its socket is back that was replaced by one that says "+what, func(ctx SpecContext) {
			s := newSite(headscale.TransportGRPC)
			mute, err := new(net.ListenConfig).Listen(ctx, "unix", s.socket)
			Expect(err).NotTo(HaveOccurred())
			go func() {
				for {
					conn, err := mute.Accept()
					if err != nil {
						return
					}
					go func() {
						says(conn)
						_, _ = io.Copy(io.Discard, conn)
						_ = conn.Close()
					}()
				}
			}()
			client := s.grpc(validKey)
			// A part of it passes before the endpoint has the request.
			limited, cancel := context.WithTimeout(ctx, 3*muteAfter)
			defer cancel()
			_, err = client.ListApiKeys(limited, &v1.ListApiKeysRequest{})
			Expect(status.Code(err)).To(Equal(codes.DeadlineExceeded))
			Expect(mute.Close()).To(Succeed())
			s.fake(headscaletest.V028)
			Eventually(func() error {
				// Less than muteAfter, else these calls could do what the first one must do.
				limited, cancel := context.WithTimeout(ctx, muteAfter/2)
				defer cancel()
				_, err := client.ListApiKeys(limited, &v1.ListApiKeysRequest{})
				return err
			}).WithContext(ctx).WithTimeout(30 * time.Second).Should(Succeed())
		})
	}

	It("is preferred by its protocol, which the client takes", func() {
		for transport, protocol := range map[headscale.Transport]string{
			headscale.TransportUnknown: "h2", headscale.TransportGRPC: "h2", headscale.TransportHTTP: "http/1.1",
		} {
			s := newSite(transport)
			Expect(s.negotiated("h2", "http/1.1")).To(Equal(protocol))
		}
	})
})

func TestKeyring(t *testing.T) {
	g := NewWithT(t)
	now := time.Unix(0, 0)
	keys := NewKeyring(func() time.Time { return now })
	g.Expect(keys.accepts("")).To(BeFalse())
	keys.Accept("a", headscale.NewKey("key-a"), now.Add(time.Hour))
	keys.Accept("b", headscale.NewKey("key-b"), time.Time{})
	keys.Accept("c", headscale.Key{}, time.Time{})
	g.Expect(keys.accepts("key-a")).To(BeTrue())
	g.Expect(keys.accepts("key-b")).To(BeTrue(), "both during a revocation delay")
	g.Expect(keys.accepts("")).To(BeFalse())
	keys.Refuse("b")
	g.Expect(keys.accepts("key-b")).To(BeFalse())

	keys.Listed([]headscale.APIKey{{Prefix: "a", Expiration: now.Add(time.Minute)}})
	now = now.Add(time.Minute)
	g.Expect(keys.accepts("key-a")).To(BeFalse(), "expired")
	now = now.Add(-time.Second)
	g.Expect(keys.accepts("key-a")).To(BeTrue())
	keys.Listed(nil)
	g.Expect(keys.accepts("key-a")).To(BeFalse(), "deleted in Headscale")
}

// BenchmarkWrongKey shows that it takes as long whatever the key has in common with a valid one.
func BenchmarkWrongKey(b *testing.B) {
	keys := NewKeyring(time.Now)
	keys.Accept("a", headscale.NewKey(validKey), time.Time{})
	for name, text := range map[string]string{
		"short": "x", "other": strings.Repeat("x", len(validKey)), "almost": validKey[:len(validKey)-1] + "x", "valid": validKey,
	} {
		header := http.Header{"Authorization": {"Bearer " + text}}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				keys.admits(header)
			}
		})
	}
}
