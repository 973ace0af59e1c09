package reliability_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const sectionForeign = "foreign"

// Headscale up to 0.29 refuses a prefix that it does not know with the code of everything else.
var _ = Describe("An unknown key", func() {
	eachHeadscale("is told from one that cannot be expired", func(ctx SpecContext, version string) {
		list := headscale.NewClient(headscale.UnixSocket(sharedHeadscale(ctx, version).SocketPath()))
		DeferCleanup(list.Close)
		Expect(list.ExpireAPIKey(ctx, "abcdefghijkl")).To(MatchError(headscale.ErrNotFound), version)
		key, err := list.CreateAPIKey(ctx, time.Now().Add(time.Hour))
		Expect(err).NotTo(HaveOccurred())
		prefix, known := key.Prefix()
		Expect(known).To(BeTrue())
		Expect(list.ExpireAPIKey(ctx, prefix)).To(Succeed(), version)
	})
})

var _ = Describe("When something is not ours, a manager", func() {
	eachHeadscale("leaves a Secret of that name alone until it is gone", func(ctx SpecContext, version string) {
		w := newWorld(ctx, sharedHeadscale(ctx, version))
		theirs := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: v1beta1.DefaultSecretName},
			StringData: map[string]string{v1beta1.SecretDataKey: randomText(20)},
		}
		Expect(admin.Create(ctx, theirs)).To(Succeed())
		before := w.count(ctx)
		w.run(calm...)
		Eventually(ctx, w.news).Should(ContainSubstring(saying(rotation.ReasonNotOurs)))
		w.annotate(ctx, foreignName, foreignValue)
		changed, err := w.secret(ctx)
		Expect(err).NotTo(HaveOccurred())
		w.staysUp(ctx, refusalTime/2)
		Expect(w.secret(ctx)).To(Equal(changed))
		Expect(w.createdSince(ctx, before)).To(BeZero())
		w.deleteSecret(ctx)
		seen := observation{
			Section: sectionForeign, Failure: "a Secret of that name without our labels, deleted later", Produced: "POST, DELETE",
			Headscale: version, Wanted: 1, Note: "untouched until then; reason: " + string(rotation.ReasonNotOurs),
		}
		w.healsWithConsumer(ctx, &seen, before)
		Expect(seen.Created).To(Equal(1))
		note(seen)
	})

	eachHeadscale("stops when the labels go, goes on when they are back", func(ctx SpecContext, version string) {
		w := newWorld(ctx, sharedHeadscale(ctx, version)).managed(ctx, calm...)
		before := w.count(ctx)
		w.edit(ctx, func(s *corev1.Secret) { s.Labels = nil })
		Eventually(ctx, w.news).Should(ContainSubstring(saying(rotation.ReasonNotOurs)))
		w.requestRotation(ctx)
		w.staysUp(ctx, refusalTime/2)
		Expect(w.createdSince(ctx, before)).To(BeZero())
		w.edit(ctx, func(s *corev1.Secret) {
			s.Labels = map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey}
		})
		seen := observation{
			Section: sectionForeign, Failure: "our labels removed, a rotation requested, the labels restored", Produced: "edits",
			Headscale: version, Wanted: 1, Note: "the rotation is done afterwards",
		}
		w.healsWithConsumer(ctx, &seen, before)
		Expect(seen.Created).To(Equal(1))
		note(seen)
	})

	eachHeadscale("keeps the entries of others through a rotation", func(ctx SpecContext, version string) {
		w := newWorld(ctx, sharedHeadscale(ctx, version)).managed(ctx, calm...)
		w.edit(ctx, addForeignEntries)
		before := w.count(ctx)
		w.requestRotation(ctx)
		seen := observation{
			Section: sectionForeign, Failure: "labels, annotations and data of others on our Secret, and a rotation", Produced: "edit",
			Headscale: version, Wanted: 1, Note: "all of them survive",
		}
		w.healsWithConsumer(ctx, &seen, before)
		w.expectForeignEntries(ctx)
		note(seen)
	})
})
