package headscale

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("A request for a new key", func() {
	const request = `{metadata: {annotations: {api-key.headscale.infrado.cloud/rotate-requested-at: "%s"}}}`

	It("is forwarded to the Secret, once", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", fmt.Sprintf(request, "first"))).To(Succeed())
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		Expect(admin.Create(ctx, secret)).To(Succeed())
		live := get[corev1.Secret](ctx, o.namespace, "headscale-api-key")
		Eventually(live).WithContext(ctx).Should(HaveField("Annotations", HaveKeyWithValue(v1beta1.AnnotationRotateRequestedAt, "first")))
		Expect(live(NewGomega(Fail)).Data).To(Equal(secret.Data))
		Eventually(get[v1beta1.Headscale](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Status.APIKey.LastRotationRequest", "first"))

		By("it being handled, and a later one being written to the Secret itself")
		annotateSecret(ctx, secret, map[string]any{v1beta1.AnnotationRotateRequestedAt: "second", v1beta1.AnnotationRotateHandled: "second"})
		o.touch(ctx, "headscale")
		Expect(live(NewGomega(Fail)).Annotations).To(HaveKeyWithValue(v1beta1.AnnotationRotateRequestedAt, "second"))

		By("a new one")
		Expect(patch(ctx, o.namespace, "headscale", fmt.Sprintf(request, "third"))).To(Succeed())
		Eventually(live).WithContext(ctx).Should(HaveField("Annotations", HaveKeyWithValue(v1beta1.AnnotationRotateRequestedAt, "third")))
	})

	It("is not forwarded when the Secret knows of it", func(ctx context.Context) {
		o := startOperator(ctx)
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		secret.Annotations[v1beta1.AnnotationRotateHandled] = "first"
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", fmt.Sprintf(request, "first"))).To(Succeed())
		Eventually(get[v1beta1.Headscale](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Status.APIKey.LastRotationRequest", "first"))
		Expect(get[corev1.Secret](ctx, o.namespace, "headscale-api-key")(NewGomega(Fail)).ResourceVersion).To(Equal(secret.ResourceVersion))
	})

	It("does not overwrite a newer one that the Secret got in the meantime", func(ctx context.Context) {
		o := startOperator(ctx)
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		Expect(admin.Create(ctx, secret)).To(Succeed())
		stale, err := readSecret(ctx, admin, client.ObjectKeyFromObject(secret))
		Expect(err).NotTo(HaveOccurred())
		annotateSecret(ctx, secret, map[string]any{v1beta1.AnnotationRotateRequestedAt: "newer"})
		Expect(o.reconciler.requestRotation(ctx, stale, "older")).To(MatchError(apierrors.IsConflict, "conflict"))
		Expect(get[corev1.Secret](ctx, o.namespace, "headscale-api-key")(NewGomega(Fail)).Annotations).To(HaveKeyWithValue(v1beta1.AnnotationRotateRequestedAt, "newer"))
	})

	It("is not forwarded to somebody else's Secret", func(ctx context.Context) {
		o := startOperator(ctx)
		foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: o.namespace, Name: "headscale-api-key", Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy},
		}}
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", fmt.Sprintf(request, "first"))).To(Succeed())
		o.touch(ctx, "headscale")
		Expect(get[corev1.Secret](ctx, o.namespace, "headscale-api-key")(NewGomega(Fail)).ResourceVersion).To(Equal(foreign.ResourceVersion))
	})

	It("is ignored where it is too long, and said to be", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		long := strings.Repeat("x", 200_000)
		Expect(patch(ctx, o.namespace, "headscale", `{metadata: {annotations: {api-key.headscale.infrado.cloud/rotate-requested-at: `+long+`}}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady,
			"the annotation api-key.headscale.infrado.cloud/rotate-requested-at of Headscale headscale has more than 256 bytes and is ignored: write less"))
		secret := get[corev1.Secret](ctx, o.namespace, "headscale-api-key")(NewGomega(Fail))
		Expect(secret.Annotations).NotTo(HaveKey(v1beta1.AnnotationRotateRequestedAt))

		By("saying so where Headscale is not ready, too")
		runPod(ctx, o.namespace, "headscale", 0)
		Eventually(ready).WithContext(ctx).Should(HaveField("Status", metav1.ConditionFalse))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)(NewGomega(Fail)).Message).To(ContainSubstring("is ignored: write less"))
	})
})
