package headscaletest_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

var (
	noon   = time.Date(2026, 11, 23, 12, 0, 0, 992_923_272, time.UTC)
	atNoon = headscaletest.WithClock(func() time.Time { return noon })
)

// The expected replies here are those of a real server, with the values of the test.
func TestRepliesOfHeadscale030(t *testing.T) {
	g := NewWithT(t)
	server := start(t, headscaletest.V030, atNoon)
	call := func(method, path, body string) (int, string, string) { return callHTTP(t, server, method, path, body) }
	expect := func(wantStatus int, wantType, wantBody string) func(int, string, string) {
		return func(status int, contentType, body string) {
			t.Helper()
			g.Expect(body).To(Equal(wantBody + "\n"))
			g.Expect(status).To(Equal(wantStatus))
			g.Expect(contentType).To(Equal(wantType))
		}
	}
	const problem = "application/problem+json"

	expect(200, "application/json", `{"apiKeys":[]}`)(call("GET", "/api/v1/apikey", ""))

	status, _, body := call("POST", "/api/v1/apikey", `{"expiration":"2027-01-01T00:00:00.123456Z"}`)
	g.Expect(status).To(Equal(200))
	g.Expect(body).To(MatchRegexp(`^\{"apiKey":"hskey-api-[0-9a-f]{12}-[0-9a-f]{64}"\}\n$`))
	text := strings.Split(body, `"`)[3]
	prefix := strings.Split(text, "-")[2]
	g.Expect(server.Validate(text)).To(BeTrue())

	expect(200, "application/json", `{"apiKeys":[{"id":"1","prefix":"hskey-api-`+prefix+`-***",`+
		`"expiration":"2027-01-01T00:00:00.123456Z","createdAt":"2026-11-23T12:00:00.992923272Z","lastSeen":null}]}`)(
		call("GET", "/api/v1/apikey", ""))
	expect(404, problem, `{"title":"Not Found","status":404,"detail":"getting api key",`+
		`"errors":[{"message":"record not found"}]}`)(
		call("POST", "/api/v1/apikey/expire", `{"prefix":"nope"}`))
	expect(422, problem, `{"title":"Unprocessable Entity","status":422,"detail":"validation failed","errors":[`+
		`{"message":"expected string to be RFC 3339 date-time","location":"body.expiration","value":"bad"}]}`)(
		call("POST", "/api/v1/apikey", `{"expiration":"bad"}`))
	g.Expect(server.CreatedKeys()).To(Equal(1))

	expect(200, "application/json", `{}`)(call("POST", "/api/v1/apikey/expire", `{"id":"1"}`))
	g.Expect(server.ValidKeys()).To(BeEmpty())

	for _, path := range []string{"/api/v1/apikey", "/api/v1/apikey/expire"} {
		status, contentType, _ := call("POST", path, `{`)
		g.Expect(status).To(Equal(400))
		g.Expect(contentType).To(Equal(problem))
	}
	server.Inject(headscaletest.Fault{Do: headscaletest.Refuse})
	status, contentType, body := call("GET", "/api/v1/apikey", "")
	g.Expect(status).To(Equal(500))
	g.Expect(contentType).To(Equal(problem))
	g.Expect(body).To(ContainSubstring("database is locked"))
}

func TestRepliesOfHeadscaleUpTo029(t *testing.T) {
	for _, format := range []struct {
		release     headscaletest.Release
		key, listed string
		byID        codes.Code
		byBoth      codes.Code
	}{
		{headscaletest.V027, `^[\w-]{7}\.[\w-]{32}$`, `^[\w-]{7}$`, codes.Unknown, codes.OK},
		{headscaletest.V028, `^hskey-api-[\w-]{12}-[\w-]{64}$`, `^hskey-api-[\w-]{12}-\*\*\*$`, codes.OK, codes.InvalidArgument},
	} {
		t.Run(format.release.String(), func(t *testing.T) {
			g := NewWithT(t)
			server := start(t, format.release, atNoon)
			api, ctx := dialGRPC(t, server), t.Context()
			expiration := timestamppb.New(noon.Add(time.Hour))

			created, err := api.CreateApiKey(ctx, &v1.CreateApiKeyRequest{Expiration: expiration})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(created.GetApiKey()).To(MatchRegexp(format.key))
			g.Expect(server.Validate(created.GetApiKey())).To(BeTrue())

			listed, err := api.ListApiKeys(ctx, &v1.ListApiKeysRequest{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(listed.GetApiKeys()).To(HaveLen(1))
			key := listed.GetApiKeys()[0]
			g.Expect(key.GetPrefix()).To(MatchRegexp(format.listed))
			g.Expect(key.GetExpiration().AsTime()).To(Equal(expiration.AsTime()))
			g.Expect(key.GetCreatedAt().AsTime()).To(Equal(noon))

			expire := func(id uint64, prefix string) codes.Code {
				_, err := api.ExpireApiKey(ctx, &v1.ExpireApiKeyRequest{Id: id, Prefix: prefix})
				return status.Code(err)
			}
			_, err = api.ExpireApiKey(ctx, &v1.ExpireApiKeyRequest{Prefix: "nope"})
			g.Expect(status.Code(err)).To(Equal(codes.Unknown))
			g.Expect(status.Convert(err).Message()).To(Equal("record not found"))
			prefix := server.Database().Keys()[0].Prefix
			g.Expect(expire(1, prefix)).To(Equal(format.byBoth))
			g.Expect(expire(1, "")).To(Equal(format.byID))
			g.Expect(server.ValidKeys()).To(BeEmpty())
			g.Expect(*server.Database().Keys()[0].Expiration).To(Equal(noon))

			omitted, err := api.CreateApiKey(ctx, &v1.CreateApiKeyRequest{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(server.Validate(omitted.GetApiKey())).To(BeFalse(), "no expiration is one in year 1")
		})
	}
}

// start runs a fake Headscale until the end of the test.
func start(t *testing.T, release headscaletest.Release, options ...headscaletest.Option) *headscaletest.Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "hs") //nolint:usetesting // short enough for a socket in it
	if err != nil {
		t.Fatal(err)
	}
	server := headscaletest.New(filepath.Join(dir, "s"), release, options...)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		_ = os.RemoveAll(dir)
	})
	return server
}

func callHTTP(t *testing.T, server *headscaletest.Server, method, path, body string) (status int, contentType, answer string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", server.SocketPath())
		},
	}}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://headscale"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), string(content)
}

func dialGRPC(t *testing.T, server *headscaletest.Server) v1.HeadscaleServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+server.SocketPath(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return v1.NewHeadscaleServiceClient(conn)
}
