package integration_test

import (
	"context"
	"io"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// noiseKey is a private key as Headscale writes it into a file.
func noiseKey(digit string) []byte {
	return []byte("privkey:" + strings.Repeat(digit, 64) + "\n")
}

var _ = Describe("Secrets and files by name", func() {
	It("reach Headscale, and a change of one makes a new pod", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		keys := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "keys"}, Data: map[string][]byte{"noise": noiseKey("4")}}
		Expect(admin.Create(ctx, keys)).To(Succeed())
		Expect(admin.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "policy"},
			Data:       map[string]string{"policy.hujson": `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]} // everything` + "\n"},
		})).To(Succeed())
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest[:len(shortestManifest)-2]+
			", secrets: {noise_private_key: {name: keys, key: noise}}, files: {policy: {config_map: {name: policy, key: policy.hujson}}}}\n")
		hs.awaitReady(ctx)
		before := hs.publicKey(ctx)
		Expect(before).To(ContainSubstring("mkey:"))

		keys.Data["noise"] = noiseKey("6")
		Expect(admin.Update(ctx, keys)).To(Succeed())
		Eventually(hs.publicKey).WithContext(ctx).Should(And(ContainSubstring("mkey:"), Not(Equal(before))))
		hs.awaitReady(ctx)
	})
})

// publicKey is the public part of Headscale's Noise key, as clients ask for it; "" when
// Headscale does not answer.
func (s *server) publicKey(ctx context.Context) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.pod.Address(containerHeadscale, "http")+"/key?v=113", http.NoBody)
	if err != nil {
		return ""
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return ""
	}
	return string(body)
}
