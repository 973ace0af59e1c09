package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

var _ = Describe("An upgrade from v0.26.1 over v0.27.1 and v0.28.0 to v0.29.3", func() {
	It("keeps users, nodes, pre-auth keys and a working API key", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, strings.Replace(shortestManifest, serverbuild.DefaultHeadscale, "v0.26.1", 1))
		hs.awaitReady(ctx)
		first := keyOf(hs.awaitRest(ctx, secretName))

		hs.call(ctx, first, http.MethodPost, "/api/v1/user", map[string]any{"name": "ada"})
		// The first user of a database.
		const id = "1"
		const registration = "abcdefghijklmnopqrstuvwx"
		hs.call(ctx, first, http.MethodPost, "/api/v1/preauthkey", map[string]any{
			"user": id, "reusable": true, "expiration": time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339),
		})
		hs.call(ctx, first, http.MethodPost, "/api/v1/debug/node", map[string]any{"user": "ada", "key": registration, "name": "laptop"})
		hs.call(ctx, first, http.MethodPost, "/api/v1/node/register?user=ada&key="+registration, nil)

		By("being refused to leave out two")
		hs.patch(ctx, `{"spec":{"version":"v0.29.3"}}`)
		Eventually(func() any {
			return meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionReady)
		}).Should(HaveField("Reason", v1beta1.ReasonUpgradeRefused))
		Expect(hs.keyStatus(ctx, first)).To(Equal(http.StatusOK), "the pod goes on running")

		for _, version := range []string{"v0.27.1", "v0.28.0", "v0.29.3"} {
			By("going to " + version)
			hs.patch(ctx, `{"spec":{"version":"`+version+`"}}`)
			hs.awaitReady(ctx)
			Expect(hs.get(ctx).Status.Version).To(Equal(version))
			key := keyOf(hs.awaitRest(ctx, secretName))
			Expect(key).To(Equal(first), "a good key is not replaced")
			Expect(hs.call(ctx, key, http.MethodGet, "/api/v1/user", nil)).To(HaveKeyWithValue("users", ConsistOf(HaveKeyWithValue("name", "ada"))))
			Expect(hs.call(ctx, key, http.MethodGet, "/api/v1/node", nil)).To(HaveKeyWithValue("nodes", ConsistOf(HaveKeyWithValue("givenName", "laptop"))))
			Expect(hs.call(ctx, key, http.MethodGet, "/api/v1/preauthkey?user="+id, nil)).To(HaveKeyWithValue("preAuthKeys", HaveLen(1)))
		}
	})
})

// call calls Headscale's REST API and returns what it answers.
func (s *server) call(ctx context.Context, key, method, path string, body any) map[string]any {
	GinkgoHelper()
	var content io.Reader = http.NoBody
	if body != nil {
		raw, err := json.Marshal(body)
		Expect(err).NotTo(HaveOccurred())
		content = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.pod.Address(containerHeadscale, "http")+path, content)
	Expect(err).NotTo(HaveOccurred())
	request.Close = true
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	Expect(response.StatusCode).To(Equal(http.StatusOK), "%s %s: %s", method, path, raw)
	answer := map[string]any{}
	Expect(json.Unmarshal(raw, &answer)).To(Succeed())
	return answer
}
