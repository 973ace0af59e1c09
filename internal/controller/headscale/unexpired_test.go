package headscale

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

var _ = Describe("A Secret that is left during a revocation_delay", func() {
	DescribeTable("is named with the replaced key that nothing expires any more", func(ctx context.Context, change string) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		secret.Annotations[v1beta1.AnnotationRetiring] = "0123456789ab@" + o.time().Add(time.Hour).UTC().Format(time.RFC3339)
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Eventually(get[v1beta1.Headscale](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Status.APIKey.KeyPrefix", Not(BeEmpty())))
		Expect(patch(ctx, o.namespace, "headscale", change)).To(Succeed())
		Eventually(func(g Gomega) []string {
			list := &eventsv1.EventList{}
			g.Expect(admin.List(ctx, list, client.InNamespace(o.namespace), client.MatchingFields{"reason": v1beta1.EventSecretLeft})).To(Succeed())
			var notes []string
			for _, event := range list.Items {
				notes = append(notes, event.Note)
			}
			return notes
		}).WithContext(ctx).Should(ConsistOf(
			"Secret headscale-api-key is no longer managed; it is not changed, and its key stays valid: delete it when nothing reads it; " +
				"key 0123456789ab was replaced and is valid until its own expiration, unless you expire it: headscale apikeys expire --prefix 0123456789ab"))
	},
		Entry("another name", `{spec: {api_key: {secret_name: other}}}`),
		Entry("no management", `{spec: {api_key: {auto_manage: false}}}`),
	)

	It("is read from the API server while the cache does not have it", func(ctx context.Context) {
		o := startOperator(ctx)
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		secret.Labels = nil // The cache never has one without.
		secret.Annotations[v1beta1.AnnotationRetiring] = "0123456789ab@" + o.time().Add(time.Hour).UTC().Format(time.RFC3339)
		Expect(admin.Create(ctx, secret)).To(Succeed())
		before := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace}}
		before.Status.APIKey = &v1beta1.APIKeyStatus{SecretName: secret.Name}
		Eventually(func() []status.Event {
			return o.reconciler.withUnexpired(ctx, before, []status.Event{{Reason: v1beta1.EventSecretLeft}})
		}).WithContext(ctx).Should(HaveExactElements(HaveField("Note", HavePrefix("; key 0123456789ab was replaced"))))
	})
})

func TestUnexpired(t *testing.T) {
	replaced := func(prefix string) string {
		return "; key " + prefix + " was replaced and is valid until its own expiration, unless you expire it: headscale apikeys expire --prefix " + prefix
	}
	for name, test := range map[string]struct{ retiring, pending, want string }{
		"none":       {},
		"unread":     {retiring: "abc, ab@today"},
		"retiring":   {retiring: "aa@2026-11-24T05:00:00Z,bb@2026-11-24T06:00:00Z", want: replaced("aa") + replaced("bb")},
		"on its way": {pending: "2027-02-22T05:00:00Z@2026-11-24T05:00:00Z", want: "; a key was being created: if headscale apikeys list shows one that expires at 2027-02-22T05:00:00Z, expire it"},
	} {
		t.Run(name, func(t *testing.T) {
			secret := &metav1.PartialObjectMetadata{}
			secret.Annotations = map[string]string{v1beta1.AnnotationRetiring: test.retiring, v1beta1.AnnotationPending: test.pending}
			NewWithT(t).Expect(unexpired(secret)).To(Equal(test.want))
		})
	}
	NewWithT(t).Expect(unexpired(nil)).To(BeEmpty())
}
