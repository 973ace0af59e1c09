package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// referring is a Headscale that refers to a Secret and a ConfigMap.
const referring = shortest + `
  secrets: {noise_private_key: {name: keys, key: noise}}
  files: {policy: {config_map: {name: policy, key: policy.hujson}}}
`

var _ = Describe("A Headscale that refers to Secrets and ConfigMaps", func() {
	var o *operator
	var keys *corev1.Secret
	var policy *corev1.ConfigMap

	BeforeEach(func(ctx context.Context) {
		o = startOperator(ctx)
		keys = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "keys"}, Data: map[string][]byte{"noise": []byte("private-value")}}
		policy = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "policy"}, Data: map[string]string{"policy.hujson": "{}"}}
	})

	digest := func(ctx context.Context) func(Gomega) string {
		return func(g Gomega) string {
			return get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g).Spec.Template.Annotations[resources.AnnotationReferences]
		}
	}

	It("says which one is missing, and starts when it is there", func(ctx context.Context) {
		Expect(create(ctx, o.namespace, referring)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"spec.secrets.noise_private_key names Secret keys, which does not exist: create it, or name another"))
		Expect(missing[appsv1.StatefulSet](ctx, o.namespace, "headscale")()).To(BeTrue())

		Expect(admin.Create(ctx, keys)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"spec.files.policy names ConfigMap policy, which does not exist: create it, or name another"))

		Expect(admin.Create(ctx, policy)).To(Succeed())
		Eventually(digest(ctx)).WithContext(ctx).Should(MatchRegexp("^[0-9a-f]{64}$"))
		Expect(get[corev1.ConfigMap](ctx, o.namespace, "headscale")(NewGomega(Fail)).Data["config.yaml"]).NotTo(ContainSubstring("private-value"))
	})

	It("gets a new pod when one changes, and only then", func(ctx context.Context) {
		Expect(admin.Create(ctx, keys)).To(Succeed())
		Expect(admin.Create(ctx, policy)).To(Succeed())
		Expect(create(ctx, o.namespace, referring)).To(Succeed())
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(BeEmpty())
		first := digest(ctx)(NewGomega(Fail))
		o.touch(ctx, "headscale")
		before := o.written()
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))

		keys.Data["noise"] = []byte("another")
		Expect(admin.Update(ctx, keys)).To(Succeed())
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(Equal(first))
		second := digest(ctx)(NewGomega(Fail))

		policy.Data["policy.hujson"] = `{"acls": []}`
		Expect(admin.Update(ctx, policy)).To(Succeed())
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(Equal(second))
	})

	It("leaves the running pod alone when one is deleted", func(ctx context.Context) {
		Expect(admin.Create(ctx, keys)).To(Succeed())
		Expect(admin.Create(ctx, policy)).To(Succeed())
		Expect(create(ctx, o.namespace, referring)).To(Succeed())
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(BeEmpty())
		first := digest(ctx)(NewGomega(Fail))
		Expect(admin.Delete(ctx, keys)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "names Secret keys, which does not exist"))
		Expect(digest(ctx)(NewGomega(Fail))).To(Equal(first))
	})

	It("warns of a secret in plain text", func(ctx context.Context) {
		Expect(create(ctx, o.namespace, shortest+`
    oidc: {issuer: "https://sso.example.com", client_secret: in-plain-text}
  api_key: {auto_manage: false}
`)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady,
			"but spec.config.oidc.client_secret is in plain text in the ConfigMap: put it into a Secret and name that in spec.secrets.oidc_client_secret"))
	})
})
