package adminserver

import (
	"net/http"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

var _ = Describe("The endpoint", func() {
	for _, release := range []headscaletest.Release{headscaletest.V027, headscaletest.V028} {
		It("passes gRPC on to Headscale "+release.String(), func(ctx SpecContext) {
			s := newSite(headscale.TransportGRPC)
			fake := s.fake(release)
			created, err := s.grpc(validKey).CreateApiKey(ctx, &v1.CreateApiKeyRequest{Expiration: timestamppb.New(time.Now().Add(time.Hour))})
			Expect(err).NotTo(HaveOccurred())
			Expect(fake.Validate(created.GetApiKey())).To(BeTrue())
			client := s.grpc(validKey)
			for range 200 { // A status alone must not be torn in two, and was now and then.
				_, err = client.ExpireApiKey(ctx, &v1.ExpireApiKeyRequest{Prefix: "nope"})
				Expect(status.Code(err)).To(Equal(codes.Unknown))
				Expect(status.Convert(err).Message()).To(Equal("record not found"))
			}

			_, err = s.grpc("hskey-api-wrong").ListApiKeys(ctx, &v1.ListApiKeysRequest{})
			Expect(status.Code(err)).To(Equal(codes.Unauthenticated))
			Expect(fake.Calls(headscaletest.List)).To(BeZero())
			Expect(s.log.String()).To(BeEmpty())
		})
	}

	for _, http2 := range []bool{false, true} {
		It("passes HTTP on to Headscale v0.30, over "+map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[http2], func() {
			s := newSite(headscale.TransportHTTP)
			s.fake(headscaletest.V030)
			client := s.client(http2)
			code, body := do(client, s.request("GET", "/api/v1/apikey", nil))
			Expect(code).To(Equal(200), body)
			Expect(body).To(Equal(`{"apiKeys":[]}` + "\n"))

			wrong := s.request("GET", "/api/v1/apikey", nil)
			wrong.Header.Set("Authorization", "Bearer "+validKey+"x")
			code, _ = do(client, wrong)
			Expect(code).To(Equal(http.StatusUnauthorized))
			Expect(s.counted()).To(Equal(map[int]int{200: 1, 401: 1}))
		})
	}
})
