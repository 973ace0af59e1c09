package headscale

import (
	"context"
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("What is written", func() {
	It("is nothing at all when the API server would refuse the pod", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		// The operator asks the API server about a StatefulSet that it sees, before it writes anything.
		Eventually(func() error {
			return o.reconciler.Client.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: "headscale"}, &appsv1.StatefulSet{})
		}).WithContext(ctx).Should(Succeed())
		o.touch(ctx, "headscale")
		config := get[corev1.ConfigMap](ctx, o.namespace, "headscale")(NewGomega(Fail)).ResourceVersion
		Expect(patch(ctx, o.namespace, "headscale",
			`{spec: {config: {listen_addr: "0.0.0.0:8000"}, api_key: {secret_name: other}, pod: {labels: {team: no label}}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be("False", v1beta1.ReasonInvalidConfig, "labels"))
		Expect(get[corev1.ConfigMap](ctx, o.namespace, "headscale")(NewGomega(Fail)).ResourceVersion).To(Equal(config))
		Expect(secretsOf(get[rbacv1.Role](ctx, o.namespace, "headscale")(NewGomega(Fail)))).To(Equal([]string{"headscale-api-key"}))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {pod: {labels: null}}}`)).To(Succeed())
		Eventually(get[corev1.Service](ctx, o.namespace, "headscale")).WithContext(ctx).Should(
			HaveField("Spec.Ports", ContainElement(HaveField("Port", BeEquivalentTo(8000)))))
	})

	It("is nothing while an object is being deleted", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		var live *appsv1.StatefulSet
		Eventually(func(g Gomega) {
			live = get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g)
			live.Finalizers = []string{"example.com/wait"}
			g.Expect(admin.Update(ctx, live)).To(Succeed())
		}).WithContext(ctx).Should(Succeed())
		Expect(admin.Delete(ctx, live)).To(Succeed())
		o.touch(ctx, "headscale")
		o.touch(ctx, "headscale")
		before := len(o.written())
		o.touch(ctx, "headscale")
		Expect(o.written()[before:]).NotTo(ContainElement(HavePrefix(http.MethodPatch + " /apis/apps/")))
		live.Finalizers = nil
		Eventually(func(g Gomega) {
			live = get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g)
			live.Finalizers = nil
			g.Expect(admin.Update(ctx, live)).To(Succeed())
		}).WithContext(ctx).Should(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("UID", Not(Equal(live.UID))))
	})

	It("takes away a Role that lost its labels while the operator was away", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		o.stop()
		role := get[rbacv1.Role](ctx, o.namespace, "headscale")(NewGomega(Fail))
		role.Labels = nil
		Expect(admin.Update(ctx, role)).To(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {auto_manage: false}}}`)).To(Succeed())
		startOperatorIn(o.namespace)
		Eventually(missing[rbacv1.Role](ctx, o.namespace, "headscale")).WithContext(ctx).Should(BeTrue())
	})

	It("leaves alone what others own of the StatefulSet", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(func(g Gomega) {
			live := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g)
			live.Annotations = map[string]string{"mesh.example/on": "true"}
			live.Labels["team"] = "network"
			live.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] = "2026-11-24T00:00:00Z"
			live.Spec.Template.Spec.Containers[0].Image = "elsewhere/headscale:v0"
			g.Expect(admin.Update(ctx, live)).To(Succeed())
		}).WithContext(ctx).Should(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(And(
			HaveField("Spec.Template.Spec.Containers", ContainElement(HaveField("Image", "headscale/headscale:v0.29.3"))),
			HaveField("Annotations", HaveKeyWithValue("mesh.example/on", "true")),
			HaveField("Labels", HaveKeyWithValue("team", "network")),
			HaveField("Spec.Template.Annotations", HaveKey("kubectl.kubernetes.io/restartedAt")),
		))
	})
})
