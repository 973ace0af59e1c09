package headscale

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("The API key Secret", func() {
	It("of an old name stays as it is, and the new one is managed", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		old := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		Expect(admin.Create(ctx, old)).To(Succeed())
		key := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyValid, "headscale-api-key"))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {secret_name: other}}}`)).To(Succeed())
		Eventually(key).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyPending, "Secret other"))
		Expect(get[corev1.Secret](ctx, o.namespace, old.Name)(NewGomega(Fail)).ResourceVersion).To(Equal(old.ResourceVersion))
		Expect(get[rbacv1.Role](ctx, o.namespace, "headscale")(NewGomega(Fail)).Rules).To(ContainElement(HaveField("ResourceNames", []string{"other"})))
		renewed := keySecret(o.namespace, "other", o.time().Add(time.Hour))
		Expect(admin.Create(ctx, renewed)).To(Succeed())
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyOverdue, "Secret other"))
		Expect(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)).Status.APIKey.SecretName).To(Equal("other"))
	})

	It("is the same, and the pod gets the new settings, when durations, socket and ports change", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		Expect(admin.Create(ctx, secret)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {
			config: {unix_socket: /run/hs/admin.sock, listen_addr: "0.0.0.0:8000", metrics_listen_addr: ""},
			api_key: {expiration: 2400h, rotation_buffer: 240h}}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Spec.Template.Spec.Containers", HaveExactElements(
			And(HaveField("Ports", And(ContainElement(HaveField("ContainerPort", BeEquivalentTo(8000))), Not(ContainElement(HaveField("Name", "metrics"))))),
				WithTransform(mounts, HaveKeyWithValue("socket", "/run/hs"))),
			And(HaveField("Args", ContainElements("--socket-path=/run/hs/admin.sock", "--expiration=2400h", "--rotation-buffer=240h")),
				WithTransform(mounts, HaveKeyWithValue("socket", "/run/hs"))),
		)))
		Eventually(get[corev1.Service](ctx, o.namespace, "headscale-metrics")).WithContext(ctx).Should(
			HaveField("Spec.Ports", HaveExactElements(HaveField("Name", "apikey-metrics"))), "nothing is left over")
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(get[corev1.Secret](ctx, o.namespace, secret.Name)(NewGomega(Fail)).ResourceVersion).To(Equal(secret.ResourceVersion))
		Expect(get[corev1.Service](ctx, o.namespace, "headscale")(NewGomega(Fail)).Spec.Ports).To(ContainElement(HaveField("Name", "http")))
	})

	It("costs no copies of the Headscales that name it", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[rbacv1.Role](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		copies := &copyCounter{Client: o.reconciler.Client}
		r := &Reconciler{Client: copies}
		secret := client.ObjectKey{Namespace: o.namespace, Name: "headscale-api-key"}
		Eventually(func(g Gomega) {
			g.Expect(r.listManagers(ctx, secret.Namespace, secret.Name)).To(HaveLen(1))
			g.Expect(r.listWithRights(ctx, secret)).To(HaveLen(1))
		}).WithContext(ctx).Should(Succeed())
		Expect(copies.copied).To(BeZero())
	})
})

// copyCounter counts the reads that copy what the cache holds.
type copyCounter struct {
	client.Client
	copied int
}

func (c *copyCounter) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if !ptr.Deref((&client.GetOptions{}).ApplyOptions(options).UnsafeDisableDeepCopy, false) {
		c.copied++
	}
	return c.Client.Get(ctx, key, object, options...)
}

func (c *copyCounter) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if !ptr.Deref((&client.ListOptions{}).ApplyOptions(options).UnsafeDisableDeepCopy, false) {
		c.copied++
	}
	return c.Client.List(ctx, list, options...)
}
