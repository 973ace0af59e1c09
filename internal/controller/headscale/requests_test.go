package headscale

import (
	"context"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("What the operator asks for", func() {
	// live is an operator that has seen a key, a request for another one, a reference and
	// a Secret that is in the way.
	live := func(ctx context.Context) *operator {
		GinkgoHelper()
		o := startOperator(ctx)
		Expect(admin.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "noise"}, StringData: map[string]string{"key": "privkey:x"},
		})).To(Succeed())
		Expect(create(ctx, o.namespace, shortest+"  secrets: {noise_private_key: {name: noise, key: key}}\n")).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", `{metadata: {annotations: {api-key.headscale.infrado.cloud/rotate-requested-at: now}}}`)).To(Succeed())
		Eventually(get[corev1.Secret](ctx, o.namespace, "headscale-api-key")).WithContext(ctx).Should(HaveField("Annotations", HaveKey(v1beta1.AnnotationRotateRequestedAt)))
		Expect(admin.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "other"}})).To(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {secret_name: other}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonConflict, ""))
		return o
	}
	path := func(request *http.Request) string { return request.Method + " " + request.URL.String() }

	It("is of Secrets the metadata alone, and the data of one that the Headscale refers to, once", func(ctx context.Context) {
		kinds := map[string]int{}
		read := 0
		for _, request := range live(ctx).asked() {
			if !strings.Contains(request.URL.Path, "/secrets") {
				continue
			}
			kinds[request.Method]++
			if strings.HasSuffix(request.URL.Path, "/secrets/noise") && !strings.Contains(request.Header.Get("Accept"), "as=PartialObjectMetadata") {
				read++
				continue
			}
			Expect(request.Header.Get("Accept")).To(HavePrefix("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata"), path(request))
		}
		Expect(read).To(Equal(1))
		Expect(kinds).To(And(HaveKeyWithValue(http.MethodGet, BeNumerically(">", 2)), HaveKeyWithValue(http.MethodPatch, 1), HaveLen(2)))
	})

	It("is of other kinds what is its own, or what is named", func(ctx context.Context) {
		o := live(ctx)
		lists := map[string]bool{}
		for _, request := range o.asked() {
			query := request.URL.Query()
			parts := strings.Split(request.URL.Path, "/"+o.namespace+"/")
			if request.Method != http.MethodGet || len(parts) != 2 || strings.Contains(parts[1], "/") || parts[1] == "headscales" {
				continue
			}
			selector := query.Get("labelSelector")
			if parts[1] == "events" {
				Expect(query.Get("fieldSelector")).To(And(ContainSubstring("involvedObject.uid="), ContainSubstring("reason=FailedCreate")), path(request))
				continue
			}
			if selector == "" {
				// Changes of references are told by a watch of all Secrets' metadata.
				Expect(parts[1]).To(Equal("secrets"), path(request))
				Expect(query.Get("limit") == "1" || query.Get("watch") == "true").To(BeTrue(), path(request))
				Expect(request.Header.Get("Accept")).To(ContainSubstring("as=PartialObjectMetadata"), path(request))
				continue
			}
			lists[parts[1]] = true
			Expect(strings.Split(selector, ",")).To(ContainElement("app.kubernetes.io/managed-by=headscale-operator"), path(request))
			if parts[1] == "secrets" {
				Expect(selector).To(ContainSubstring("app.kubernetes.io/component in (api-key,identity,pre-auth-key)"), path(request))
			}
		}
		Expect(lists).To(And(HaveLen(10), HaveKey("secrets"), HaveKey("pods"), HaveKey("statefulsets")))
	})
})
