package integration_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
)

var _ = Describe("A key that cannot be replaced", func() {
	It("is told of by the resource within two minutes, and so is the end of it", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
		secret := hs.awaitRest(ctx, secretName)
		Eventually(warnedAndTold).WithContext(ctx).WithArguments(namespace).Should(ContainElement("Normal KeyStored"))
		Expect(warnedAndTold(ctx, namespace)).To(HaveEach(HavePrefix("Normal ")), "nothing was wrong at the start")

		Expect(admin.Patch(ctx, secret, client.RawPatch(types.MergePatchType, []byte(`{"immutable":true}`)))).To(Succeed())
		hs.patch(ctx, `{"metadata":{"annotations":{"api-key.headscale.infrado.cloud/rotate-requested-at":"now"}}}`)
		ready := func(ctx context.Context) *metav1.Condition {
			return meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionReady)
		}
		Eventually(ready).WithContext(ctx).Should(And(
			HaveField("Reason", v1beta1.ReasonRotationFailing), HaveField("Status", metav1.ConditionTrue),
			HaveField("Message", And(ContainSubstring(`("now") has not been created`), ContainSubstring("kubectl logs headscale-0 -c apikey-manager")))))
		Expect(hs.pod.Log(containerManager)).To(ContainSubstring("immutable"), "which tells why")
		Eventually(warnedAndTold).WithContext(ctx).WithArguments(namespace).Should(ContainElement("Warning RotationFailing"))

		Expect(admin.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secretName}})).To(Succeed())
		hs.awaitKey(ctx, secretName, keyOf(secret))
		Eventually(ready).WithContext(ctx).Should(HaveField("Reason", v1beta1.ReasonReady))
		Eventually(warnedAndTold).WithContext(ctx).WithArguments(namespace).Should(ContainElement("Normal Recovered"))
	})
})

// warnedAndTold lists the events in a namespace, but for those of the API server, by their kinds
// and reasons.
func warnedAndTold(ctx context.Context, namespace string) ([]string, error) {
	list := &eventsv1.EventList{}
	err := admin.List(ctx, list, client.InNamespace(namespace))
	var all []string
	for i := range list.Items {
		if event := &list.Items[i]; !env.ToldByAPIServer(event) {
			all = append(all, event.Type+" "+event.Reason)
		}
	}
	return all, err
}
