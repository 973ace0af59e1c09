package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("A Headscale at rest", func() {
	for name, extra := range map[string]string{
		"with an API key":    "",
		"without an API key": "  api_key: {auto_manage: false}\n",
		"with everything set": `
  image: registry.example:5000/headscale
  replicas: 1
  persistent_volume_claim: {size: 1024Mi, storage_class_name: fast}
  image_pull_secrets: [{name: one}, {name: two}]
  api_key: {secret_name: admin-key, expiration: 1h, rotation_buffer: 30m, revocation_delay: 10m}
`,
	} {
		It("causes no write, "+name, func(ctx context.Context) {
			o := startOperator(ctx)
			Expect(create(ctx, o.namespace, shortest+extra)).To(Succeed())
			for _, secret := range []string{"headscale-api-key", "admin-key"} {
				Expect(admin.Create(ctx, keySecret(o.namespace, secret, o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
			}
			runPod(ctx, o.namespace, "headscale", 1)
			Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
			before := o.settle(ctx, "headscale")
			for range 5 {
				o.touch(ctx, "headscale")
			}
			Expect(o.written()).To(Equal(before))
		})
	}

	It("causes no write when the operator starts again", func(ctx context.Context) {
		first := startOperator(ctx)
		Expect(create(ctx, first.namespace, shortest)).To(Succeed())
		Expect(admin.Create(ctx, keySecret(first.namespace, "headscale-api-key", first.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		runPod(ctx, first.namespace, "headscale", 1)
		Eventually(condition(ctx, first.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		first.stop()

		second := startOperatorIn(first.namespace)
		Eventually(second.passes.Load).WithContext(ctx).Should(BeNumerically(">", 0))
		second.touch(ctx, "headscale")
		second.touch(ctx, "headscale")
		Expect(second.written()).To(BeEmpty())
	})

	It("is made with one write for each object", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Generation", BeEquivalentTo(1)))
		o.touch(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(ConsistOf(
			"PATCH /api/v1/namespaces/"+o.namespace+"/serviceaccounts/headscale",
			"PATCH /apis/rbac.authorization.k8s.io/v1/namespaces/"+o.namespace+"/roles/headscale",
			"PATCH /apis/rbac.authorization.k8s.io/v1/namespaces/"+o.namespace+"/rolebindings/headscale",
			"PATCH /api/v1/namespaces/"+o.namespace+"/configmaps/headscale",
			"PATCH /api/v1/namespaces/"+o.namespace+"/services/headscale",
			"PATCH /api/v1/namespaces/"+o.namespace+"/services/headscale-metrics",
			"PATCH /apis/apps/v1/namespaces/"+o.namespace+"/statefulsets/headscale",
			"PATCH /apis/headscale.infrado.cloud/v1beta1/namespaces/"+o.namespace+"/headscales/headscale/status",
		))
	})

	It("leaves alone what others own and puts right what is its own", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(func(g Gomega) {
			service := get[corev1.Service](ctx, o.namespace, "headscale")(g)
			service.Annotations = map[string]string{"mesh.example/on": "true"}
			service.Labels["team"] = "network"
			service.Labels["app.kubernetes.io/version"] = "wrong"
			service.Spec.Selector["app.kubernetes.io/instance"] = "elsewhere"
			g.Expect(admin.Update(ctx, service)).To(Succeed())
		}).WithContext(ctx).Should(Succeed())
		Eventually(get[corev1.Service](ctx, o.namespace, "headscale")).WithContext(ctx).Should(And(
			HaveField("Annotations", HaveKeyWithValue("mesh.example/on", "true")),
			HaveField("Labels", And(HaveKeyWithValue("team", "network"), HaveKeyWithValue("app.kubernetes.io/version", "v0.29.3"))),
			HaveField("Spec.Selector", HaveKeyWithValue("app.kubernetes.io/instance", "headscale")),
		))
	})

	It("gets back an object that was deleted, or that lost its labels", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		var config *corev1.ConfigMap
		Eventually(func(g Gomega) { config = get[corev1.ConfigMap](ctx, o.namespace, "headscale")(g) }).WithContext(ctx).Should(Succeed())
		Expect(admin.Delete(ctx, config)).To(Succeed())
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", config.Data))

		Eventually(func(g Gomega) {
			config = get[corev1.ConfigMap](ctx, o.namespace, "headscale")(g)
			config.Labels = nil
			g.Expect(admin.Update(ctx, config)).To(Succeed())
		}).WithContext(ctx).Should(Succeed())
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Labels", HaveKey(v1beta1.LabelManagedBy)))
	})
})
