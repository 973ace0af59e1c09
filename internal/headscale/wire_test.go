package headscale_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// Keys that no error may ever show.
var (
	secretKey = "hskey-api-0123456789ab-" + strings.Repeat("5ecre7", 10) + "abcd"
	legacyKey = "abc-d_f." + strings.Repeat("5ecre7", 5) + "ab"
)

const plainProblem = "application/problem+json"

var _ = Describe("Over HTTP", func() {
	It("sends Headscale's requests to the letter", func(ctx SpecContext) {
		var (
			mu       sync.Mutex
			requests []string
		)
		path := serveHTTP(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			requests = append(requests, fmt.Sprintf("%s %s %s %s|%s",
				r.Proto, r.Method, r.URL, r.Header.Get("Content-Type"), body))
			mu.Unlock()
			_, _ = io.WriteString(w, `{"apiKeys":[],"apiKey":"`+secretKey+`"}`)
		})
		client := newClient(path)
		probe := "HTTP/1.1 GET /api/v1/apikey |"

		Expect(client.ListAPIKeys(ctx)).To(BeEmpty())
		Expect(client.CreateAPIKey(ctx, time.Date(2027, 1, 1, 2, 0, 0, 0, time.FixedZone("", 7200)))).
			To(Equal(headscale.NewKey(secretKey)))
		Expect(client.ExpireAPIKey(ctx, "0123456789ab")).To(Succeed())
		mu.Lock()
		defer mu.Unlock()
		Expect(requests).To(Equal([]string{
			probe, "HTTP/1.1 GET /api/v1/apikey |",
			probe, `HTTP/1.1 POST /api/v1/apikey application/json|{"expiration":"2027-01-01T00:00:00.000000Z"}`,
			probe, `HTTP/1.1 POST /api/v1/apikey/expire application/json|{"prefix":"0123456789ab"}`,
		}))
	})

	It("reads a list with fields that it does not know", func(ctx SpecContext) {
		path := serveHTTP(reply(200, "application/json", `{"$schema":"x","apiKeys":[
			{"id":"18446744073709551615","prefix":"hskey-api-9ac3e6a37ae0-***","expiration":"2027-01-01T00:00:00.123456Z",
			 "createdAt":"2026-11-23T14:22:51.992923272Z","lastSeen":null,"owner":{"name":"x"}},
			{"id":"2","prefix":"abcdefg***","expiration":null,"createdAt":null}]}`))
		Expect(newClient(path).ListAPIKeys(ctx)).To(Equal([]headscale.APIKey{
			{
				ID: 18446744073709551615, Prefix: "9ac3e6a37ae0", Masked: true,
				Expiration: time.Date(2027, 1, 1, 0, 0, 0, 123_456_000, time.UTC),
				CreatedAt:  time.Date(2026, 11, 23, 14, 22, 51, 992_923_272, time.UTC),
			},
			{ID: 2, Prefix: "abcdefg", Masked: true},
		}))
	})

	DescribeTable("makes one sentence of what went wrong, without a key in it",
		func(ctx SpecContext, handler http.HandlerFunc, sentence string) {
			_, err := newClient(serveHTTP(handler)).CreateAPIKey(ctx, tomorrow())
			Expect(err).To(MatchError("creating an API key: " + sentence))
			Expect(err).NotTo(MatchError(headscale.ErrUnavailable))
			Expect(err).NotTo(MatchError(headscale.ErrNotFound))
			Expect(errors.Is(err, headscale.ErrRefused)).To(Equal(strings.HasPrefix(sentence, "Headscale refused")))
			expectNoKey(err)
		},
		Entry("refused by validation", reply(422, plainProblem+"; charset=utf-8",
			`{"title":"Unprocessable Entity","status":422,"detail":"validation failed","errors":[`+
				`{"message":"expected string to be RFC 3339 date-time","location":"body.expiration","value":"`+secretKey+`"}]}`),
			"Headscale refused with status 422 Unprocessable Entity: validation failed: "+
				"expected string to be RFC 3339 date-time (body.expiration)"),
		Entry("refused with keys in the text", reply(500, plainProblem,
			`{"detail":"saving `+secretKey+`","errors":[{"message":"duplicate\n  \"`+legacyKey+`\""}]}`),
			`Headscale refused with status 500 Internal Server Error: saving hskey-api-***: duplicate "abc-d_f.***"`),
		Entry("refused with a password in the text", reply(500, plainProblem, `{"detail":"cannot connect to \u0060host=db user=hs password=foo TOPSECRET\u0060: no"}`),
			"Headscale refused with status 500 Internal Server Error: cannot connect to `host=db user=hs password=***`: no"),
		Entry("refused with a long text", reply(500, plainProblem, `{"detail":"`+strings.Repeat("ä", 1000)+`"}`),
			"Headscale refused with status 500 Internal Server Error: "+strings.Repeat("ä", 98)+"…"),
		Entry("answered by something else", reply(404, "text/plain", "no page for "+secretKey),
			"the answer has the unexpected status 404 Not Found: this release of Headscale cannot do this"),
		Entry("a problem that is none", reply(503, plainProblem, secretKey),
			"the answer has the unexpected status 503 Service Unavailable"),
		Entry("a redirection", http.RedirectHandler("/elsewhere", http.StatusFound).ServeHTTP,
			"the answer has the unexpected status 302 Found"),
		Entry("not JSON", reply(200, "application/json", `{"apiKey":"`+secretKey),
			"the answer of Headscale to POST /api/v1/apikey is not the JSON that was expected"),
		Entry("other JSON", reply(200, "application/json", `{"apiKey":["`+secretKey+`"]}`),
			"the answer of Headscale to POST /api/v1/apikey is not the JSON that was expected"),
		Entry("no key", reply(200, "application/json", `{}`), "the answer of Headscale holds no key"),
		Entry("too long", reply(200, "application/json", strings.Repeat(" ", 2<<20)+"{}"), tooLong),
		Entry("a problem that is too long", reply(500, plainProblem, `{"errors":[`+strings.Repeat("{},", 30_000)+`{}]}`),
			"the answer has the unexpected status 500 Internal Server Error"),
	)

	DescribeTable("takes no more of a list than there may be",
		func(ctx SpecContext, body, sentence string) {
			_, err := newClient(serveHTTP(reply(200, "application/json", body))).ListAPIKeys(ctx)
			Expect(err).To(MatchError("listing API keys: " + sentence))
		},
		Entry("too many entries", `{"apiKeys":[`+strings.Repeat("{},", 20_000)+`{}]}`, tooMany),
		Entry("nested", `{"apiKeys":[`+strings.Repeat("[", 1<<20), notJSON),
		Entry("an object", `{"apiKeys":{}}`, notJSON),
		Entry("a text", `{"apiKeys":"x"}`, notJSON),
		Entry("entries that are none", `{"apiKeys":[7]}`, notJSON),
	)

	DescribeTable("takes for an empty list", func(ctx SpecContext, body string) {
		Expect(newClient(serveHTTP(reply(200, "application/json", body))).ListAPIKeys(ctx)).To(BeEmpty())
	},
		Entry("none", `{}`), Entry("null", `{"apiKeys":null}`), Entry("nulls", `{"apiKeys":[null,null]}`),
		Entry("lists that are taken back", `{"apiKeys":[`+strings.Repeat("{},", 15_000)+`{}],"apiKeys":[]}`),
	)

	DescribeTable("follows nobody elsewhere, and reads no endless headers",
		func(ctx SpecContext, header, value, sentence string) {
			_, err := newClient(serveHTTP(func(w http.ResponseWriter, r *http.Request) {
				if r.UserAgent() != headscale.ProbeUserAgent {
					w.Header().Set(header, value)
					w.WriteHeader(http.StatusTemporaryRedirect)
				}
			})).CreateAPIKey(ctx, tomorrow())
			Expect(err).To(MatchError(ContainSubstring(sentence)))
		},
		Entry("a redirection", "Location", "http://169.254.169.254/", "unexpected status 307"),
		Entry("a long header", "X-Long", strings.Repeat("x", 100_000), "no answer from Headscale"),
	)

	DescribeTable("does not take another's 404 for a key that Headscale does not know",
		func(ctx SpecContext, contentType string) {
			err := newClient(serveHTTP(reply(404, contentType, `{"detail":"x"}`))).ExpireAPIKey(ctx, "abcdefg")
			Expect(err).To(MatchError(ContainSubstring("status 404")))
			Expect(err).NotTo(MatchError(headscale.ErrNotFound))
		},
		Entry("plain", "text/plain; charset=utf-8"),
		Entry("JSON", "application/json"),
		Entry("nothing", ""),
	)

	It("says that there was no answer when it breaks off", func(ctx SpecContext) {
		path := serveHTTP(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"apiKey":"`+secretKey)
		})
		_, err := newClient(path).CreateAPIKey(ctx, tomorrow())
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		expectNoKey(err)
	})

	DescribeTable("quotes nothing of an answer that is not HTTP at all", func(ctx SpecContext, sent string) {
		path := socketPath()
		var probed atomic.Bool
		listenRaw(path, func(conn net.Conn) {
			defer func() { _ = conn.Close() }()
			_, _ = conn.Read(make([]byte, 4096))
			if probed.CompareAndSwap(false, true) {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
				return
			}
			_, _ = io.WriteString(conn, sent)
		})
		_, err := newClient(path).CreateAPIKey(ctx, tomorrow())
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		Expect(err).To(MatchError(ContainSubstring("the answer is not HTTP/1.1")))
		expectNoKey(err)
		Expect(err.Error()).NotTo(ContainSubstring("evil"))
	},
		Entry("a key", secretKey+"\r\n\r\n"),
		Entry("another protocol", "SSH-2.0-evil\r\n\r\n"),
		Entry("a strange status", "HTTP/1.1 evil evil\r\n\r\n"),
		Entry("a strange header", "HTTP/1.1 200 OK\r\nevil evil\r\n\r\n"),
		Entry("a strange length", "HTTP/1.1 200 OK\r\nContent-Length: evil\r\n\r\n"),
		Entry("strange trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nevil evil\r\n\r\n"),
	)
})

var _ = Describe("Over gRPC", func() {
	DescribeTable("tells answers from silence by the code",
		func(ctx SpecContext, code codes.Code, message, sentence string, kind error) {
			client := newClient(serveGRPC(&stubService{err: status.Error(code, message), keys: []*v1.ApiKey{{Prefix: "abcdefg***"}}}))
			err := client.ExpireAPIKey(ctx, "abcdefg")
			Expect(err).To(MatchError("expiring an API key: " + sentence))
			for _, other := range []error{headscale.ErrNotFound, headscale.ErrUnavailable} {
				if other == kind { //nolint:errorlint // the same variable
					Expect(err).To(MatchError(other))
				} else {
					Expect(err).NotTo(MatchError(other))
				}
			}
			expectNoKey(err)
			_, err = client.CreateAPIKey(ctx, tomorrow())
			Expect(err).NotTo(MatchError(headscale.ErrNotFound))
			expectNoKey(err)
		},
		Entry("words that say otherwise than the list", codes.Unknown, "record not found",
			"Headscale refused with code Unknown: record not found", nil),
		Entry("a database error with keys in it", codes.Unknown, "saving "+secretKey+" "+legacyKey,
			"Headscale refused with code Unknown: saving hskey-api-*** abc-d_f.***", nil),
		Entry("a call that it does not have", codes.Unimplemented, "unknown method",
			"Headscale refused with code Unimplemented: unknown method", nil),
		Entry("unavailable", codes.Unavailable, "going down", "no answer from Headscale: the call ended with code Unavailable", headscale.ErrUnavailable),
		Entry("too late", codes.DeadlineExceeded, "too late", "no answer from Headscale: the call ended with code DeadlineExceeded", headscale.ErrUnavailable),
		Entry("cancelled by the other side", codes.Canceled, "gone", "no answer from Headscale: the call ended with code Canceled", headscale.ErrUnavailable),
	)

	DescribeTable("asks the list whether Headscale knows a prefix that it refuses", func(ctx SpecContext, code codes.Code, words string) {
		err := newClient(serveGRPC(&stubService{err: status.Error(code, words)})).ExpireAPIKey(ctx, "abcdefg")
		Expect(err).To(MatchError(headscale.ErrNotFound))
	},
		Entry("as releases up to 0.29 do", codes.Unknown, "record not found"),
		Entry("in other words", codes.Internal, "Datensatz nicht gefunden"),
		Entry("with its code", codes.NotFound, ""),
	)

	DescribeTable("takes a list as long as there may be, and no longer", func(ctx SpecContext, entries int, entry *v1.ApiKey, sentence string) {
		service := &stubService{keys: slices.Repeat([]*v1.ApiKey{entry}, entries)}
		keys, err := newClient(serveGRPC(service)).ListAPIKeys(ctx)
		if sentence == "" {
			Expect(err).NotTo(HaveOccurred())
			Expect(keys).To(HaveLen(entries))
			return
		}
		Expect(err).To(MatchError("listing API keys: " + sentence))
	},
		Entry("long", 20_000, &v1.ApiKey{Id: 1, Prefix: "hskey-api-0123456789ab-***"}, ""),
		Entry("too many entries", 20_001, &v1.ApiKey{}, tooMany),
		Entry("too many bytes", 10_000, &v1.ApiKey{Prefix: strings.Repeat("x", 300)}, tooLong),
	)

	DescribeTable("reads no endless metadata", func(ctx SpecContext, send func(context.Context, metadata.MD) error) {
		service := &stubService{announce: func(ctx context.Context) {
			_ = send(ctx, metadata.Pairs("x-long", strings.Repeat("x", 1<<20)))
		}}
		_, err := newClient(serveGRPC(service)).ListAPIKeys(ctx)
		Expect(err).To(HaveOccurred())
		Expect(len(err.Error())).To(BeNumerically("<", 600))
	},
		Entry("headers", grpc.SetHeader),
		Entry("trailers", grpc.SetTrailer),
	)

	It("says so when the answer holds no key", func(ctx SpecContext) {
		_, err := newClient(serveGRPC(&stubService{})).CreateAPIKey(ctx, tomorrow())
		Expect(err).To(MatchError("creating an API key: the answer of Headscale holds no key"))
	})
})

var _ = Describe("The probe", func() {
	DescribeTable("does not take for Headscale",
		func(ctx SpecContext, sent string, hangUp bool, sentence string) {
			path := socketPath()
			done := make(chan struct{})
			DeferCleanup(func() { close(done) })
			listenRaw(path, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, sent)
				if !hangUp {
					<-done
				}
				_ = conn.Close()
			})
			var options []headscale.Option
			if !hangUp { // Else the time could be over before the other side has hung up.
				options = append(options, soon)
			}
			client := newClient(path, options...)
			_, err := client.ListAPIKeys(ctx)
			Expect(err).To(MatchError(headscale.ErrUnavailable))
			Expect(err).To(MatchError(ContainSubstring(sentence)))
			Expect(client.Transport()).To(Equal(headscale.TransportUnknown))
			expectNoKey(err)
		},
		Entry("a server that hangs up", "", true, "the connection ended before an answer: EOF"),
		Entry("a server that says nothing", "", false, "in time: context deadline exceeded"),
		Entry("half a greeting", "HTTP/1.", true, "the connection ended before an answer: EOF"),
		Entry("half a greeting, and then silence", "\x00\x00\x06\x04", false, "in time"),
		Entry("another protocol", secretKey, true, "speaks neither gRPC nor HTTP/1.1"),
		Entry("another HTTP", "HTTP/2.0 200 OK\r\n\r\n", true, "speaks neither gRPC nor HTTP/1.1"),
		Entry("settings of a stream", "\x00\x00\x06\x04\x00\x00\x00\x00\x01", true, "speaks neither"),
		Entry("an acknowledgement", "\x00\x00\x00\x04\x01\x00\x00\x00\x00", true, "speaks neither"),
		Entry("settings cut in half", "\x00\x00\x07\x04\x00\x00\x00\x00\x00", true, "speaks neither"),
		Entry("another frame", "\x00\x00\x08\x07\x00\x00\x00\x00\x00", true, "speaks neither"),
	)

	DescribeTable("knows the transport by",
		func(ctx SpecContext, sent string, transport headscale.Transport) {
			path := socketPath()
			listenRaw(path, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096))
				for _, b := range []byte(sent) { // in the smallest pieces
					_, _ = conn.Write([]byte{b})
				}
				_ = conn.Close()
			})
			client := newClient(path)
			_, err := client.ListAPIKeys(ctx)
			Expect(err).To(HaveOccurred(), "there is no Headscale behind it")
			Expect(client.Transport()).To(Equal(transport))
		},
		Entry("a reply", "HTTP/1.1 200 OK\r\n\r\n", headscale.TransportHTTP),
		Entry("a reply of old", "HTTP/1.0 500 Internal Server Error\r\n\r\n", headscale.TransportHTTP),
		Entry("settings", "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", headscale.TransportGRPC),
		Entry("settings that set nothing", "\x00\x00\x00\x04\x00\x00\x00\x00\x00", headscale.TransportGRPC),
	)
})

// What the client says of answers that are larger than there may be.
const (
	tooLong = "the answer of Headscale is longer than 2 MiB; if these are expired API keys, delete them in Headscale"
	tooMany = "the answer of Headscale has more than 20000 entries; if these are expired API keys, delete them in Headscale"
	notJSON = "the answer of Headscale to GET /api/v1/apikey is not the JSON that was expected"
)

// A key that Headscale answers with gets into a Secret, and a prefix into the log.
var _ = DescribeTable("A key that no Headscale makes is refused unseen", func(ctx SpecContext, key string) {
	body, err := json.Marshal(map[string]string{"apiKey": key})
	Expect(err).NotTo(HaveOccurred())
	for _, path := range []string{
		serveHTTP(reply(200, "application/json", string(body))),
		serveGRPC(&stubService{key: strings.ToValidUTF8(key, "?")}),
	} {
		_, err := newClient(path).CreateAPIKey(ctx, tomorrow())
		Expect(err).To(MatchError(ContainSubstring("is not an API key: one has at most 256 characters")))
		expectNoKey(err)
	}
},
	Entry("with a newline", secretKey+"\n"),
	Entry("with a newline inside", secretKey[:30]+"\n"+secretKey[30:]),
	Entry("with a space", " "+secretKey),
	Entry("with control characters", secretKey+"\x1b[31m"),
	Entry("with a zero byte", secretKey+"\x00"),
	Entry("with letters beyond ASCII", secretKey+"\u202e"),
	Entry("with a comma, as between the ledger's entries", secretKey+",x@2027-01-01T00:00:00Z"),
	Entry("long", secretKey+strings.Repeat("5ecre7", 40)),
)

var _ = DescribeTable("An entry that no Headscale makes is left out of the list", func(ctx SpecContext, entry *v1.ApiKey) {
	good := &v1.ApiKey{Id: 7, Prefix: "abcdefg"}
	Expect(newClient(serveGRPC(&stubService{keys: []*v1.ApiKey{entry, good}})).ListAPIKeys(ctx)).To(Equal([]headscale.APIKey{{ID: 7, Prefix: "abcdefg"}}))
},
	Entry("without a prefix", &v1.ApiKey{}),
	Entry("with a mask only", &v1.ApiKey{Prefix: "***"}),
	Entry("with a newline", &v1.ApiKey{Prefix: "abc\ndef"}),
	Entry("with control characters", &v1.ApiKey{Prefix: "\x1b[31mred"}),
	Entry("with the ledger's separators", &v1.ApiKey{Prefix: "a@2027-01-01T00:00:00Z,b"}),
	Entry("with a long prefix", &v1.ApiKey{Prefix: strings.Repeat("a", 65)}),
	Entry("that expires in the year 292 277 026 596", &v1.ApiKey{Prefix: "abcdefh", Expiration: &timestamppb.Timestamp{Seconds: math.MaxInt64}}),
	Entry("created before the year 1", &v1.ApiKey{Prefix: "abcdefh", CreatedAt: &timestamppb.Timestamp{Seconds: math.MinInt64 / 2}}),
)

var _ = It("cuts off an answer in the smallest pieces, of which each takes memory", func(ctx SpecContext) {
	path := socketPath()
	var sent atomic.Int64
	listenRaw(path, func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		framer := http2.NewFramer(conn, bufio.NewReader(conn))
		_ = framer.WriteSettings()
		_ = framer.WriteSettingsAck()
		fields := &bytes.Buffer{}
		encoder := hpack.NewEncoder(fields)
		_ = encoder.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		_ = encoder.WriteField(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		for { // until the call comes
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			if frame.Header().Type == http2.FrameHeaders {
				break
			}
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields.Bytes(), EndHeaders: true})
		_ = framer.WriteData(1, false, []byte{0, 0, 0x1f, 0xff, 0xff})
		for framer.WriteData(1, false, []byte{0x0a}) == nil {
			sent.Add(1)
		}
	})
	// So many pieces take seconds with the race detector.
	_, err := newClient(path, headscale.WithCallTimeout(time.Minute)).ListAPIKeys(ctx)
	Expect(err).To(MatchError("listing API keys: " + tooLong))
	Expect(sent.Load()).To(BeNumerically("<", 300_000))
})

func expectNoKey(err error) {
	GinkgoHelper()
	Expect(err.Error()).NotTo(ContainSubstring("5ecre7"))
	Expect(fmt.Sprintf("%+v %#v", err, err)).NotTo(ContainSubstring("5ecre7"))
}

func reply(code int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// serveHTTP returns the path of a socket behind which the handler answers.
func serveHTTP(handler http.HandlerFunc) string {
	GinkgoHelper()
	path := socketPath()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	socket := listen(path)
	go func() { _ = server.Serve(socket) }() // until it is closed
	DeferCleanup(server.Close)
	return path
}

// serveGRPC returns the path of a socket behind which the service answers.
func serveGRPC(service v1.HeadscaleServiceServer) string {
	GinkgoHelper()
	path := socketPath()
	server := grpc.NewServer()
	v1.RegisterHeadscaleServiceServer(server, service)
	socket := listen(path)
	go func() { _ = server.Serve(socket) }() // until it is closed
	DeferCleanup(server.Stop)
	return path
}

// stubService lists its keys, and answers each other call with its error or its key.
type stubService struct {
	v1.UnimplementedHeadscaleServiceServer
	err      error
	keys     []*v1.ApiKey
	key      string
	announce func(context.Context) // before the list
}

func (s *stubService) ListApiKeys(ctx context.Context, _ *v1.ListApiKeysRequest) (*v1.ListApiKeysResponse, error) { //nolint:revive // a name of the stubs
	if s.announce != nil {
		s.announce(ctx)
	}
	return &v1.ListApiKeysResponse{ApiKeys: s.keys}, nil
}

func (s *stubService) CreateApiKey(context.Context, *v1.CreateApiKeyRequest) (*v1.CreateApiKeyResponse, error) { //nolint:revive // a name of the stubs
	return &v1.CreateApiKeyResponse{ApiKey: s.key}, s.err
}

func (s *stubService) ExpireApiKey(context.Context, *v1.ExpireApiKeyRequest) (*v1.ExpireApiKeyResponse, error) { //nolint:revive // a name of the stubs
	return &v1.ExpireApiKeyResponse{}, s.err
}
