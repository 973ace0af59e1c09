package reliability_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const sectionDrift = "drift"

// drift is a change behind the manager's back.
type drift struct {
	failure, produced string
	// prepare comes before, cause is the change.
	prepare, cause func(ctx context.Context, w *world)
	// reason is what the manager says of it, created how many keys it takes to heal.
	reason  rotation.Reason
	created int
	// unseen says that there is nothing to watch: it is noticed at the next poll.
	unseen bool
	// alone says that it needs a Headscale of its own.
	alone bool
}

var drifts = []drift{
	{failure: "Secret deleted", produced: "DELETE", cause: func(ctx context.Context, w *world) { w.deleteSecret(ctx) }, reason: rotation.ReasonSecretMissing, created: 1},
	{failure: "value overwritten with rubbish", produced: "edit", cause: overwrite(func(context.Context, *world) string { return randomText(20) }), reason: apikey.ReasonValueMalformed, created: 1},
	{failure: "value overwritten with a key that Headscale does not know", produced: "edit", cause: overwrite(inventedKey), reason: rotation.ReasonValueChanged, created: 1},
	{failure: "value overwritten with somebody else's key, which works", produced: "edit", prepare: makeOtherKey, cause: overwrite(otherKey), reason: rotation.ReasonValueChanged, created: 1},
	{failure: "value emptied", produced: "edit", cause: overwrite(func(context.Context, *world) string { return "" }), reason: rotation.ReasonKeyMissing, created: 1},
	{failure: "data removed", produced: "edit", cause: edit(func(s *corev1.Secret) { s.Data = nil }), reason: rotation.ReasonKeyMissing, created: 1},
	{failure: "all annotations removed", produced: "edit", cause: edit(func(s *corev1.Secret) { s.Annotations = nil }), reason: rotation.ReasonValueChanged, created: 1},
	{failure: "times unparsable", produced: "edit", cause: edit(spoilTimes), reason: rotation.ReasonAnnotationsDiffer},
	{failure: "expiration edited to another time", produced: "edit", cause: edit(shiftExpiration), reason: rotation.ReasonAnnotationsDiffer},
	{failure: "key expired by hand", produced: "admin API", cause: expireByHand, reason: rotation.ReasonKeyExpired, created: 1, unseen: true},
	{failure: "key deleted in Headscale", produced: "admin API", cause: deleteByHand, reason: rotation.ReasonKeyUnknown, created: 1, unseen: true},
	{failure: "Headscale restarted on an empty database", produced: "another SQLite file", cause: restartOnEmpty, reason: rotation.ReasonKeyUnknown, created: 1, alone: true},
	{failure: "Headscale restarted on an older database", produced: "a copy from before a rotation", prepare: backUpAndRotate, cause: restartOnBackup, reason: rotation.ReasonKeyUnknown, created: 1, alone: true},
}

var _ = Describe("When something drifts, a manager", func() {
	unseen := slices.DeleteFunc(slices.Clone(drifts), func(d drift) bool { return !d.unseen })
	eachHeadscale("heals while it runs, within half a minute, what Headscale does not notify of", func(ctx SpecContext, version string) {
		together(unseen, func(d drift) {
			d.alone = true // Each counts all keys of its Headscale.
			d.healsWhileItRuns(ctx, version)
		})
	})
	for _, d := range drifts {
		if !d.unseen {
			eachHeadscale("heals while it runs: "+d.failure, d.healsWhileItRuns)
		}
		eachHeadscale("heals after it was down: "+d.failure, func(ctx SpecContext, version string) {
			w := d.world(ctx, version)
			d.heals(ctx, w, "manager down", func() { w.run(calm...) })
		})
	}
})

// world makes a world that is ready to drift. The manager does not run.
func (d drift) world(ctx context.Context, version string) *world {
	GinkgoHelper()
	provide := sharedHeadscale
	if d.alone {
		provide = freshHeadscale
	}
	w := newWorld(ctx, provide(ctx, version)).managed(ctx, calm...)
	if d.prepare != nil {
		d.prepare(ctx, w)
	}
	w.terminate()
	w.hear()
	return w
}

// healsWhileItRuns lets it drift under a manager at rest.
func (d drift) healsWhileItRuns(ctx SpecContext, version string) {
	GinkgoHelper()
	w := d.world(ctx, version)
	w.run(calm...)
	w.hears(ctx, rotation.ReasonUpToDate)
	w.rests(ctx)
	d.heals(ctx, w, "manager running", func() {})
}

// heals lets it drift, and sees to it that it is noticed and healed.
func (d drift) heals(ctx context.Context, w *world, state string, notice func()) {
	GinkgoHelper()
	before, consumer := w.count(ctx), w.consume(0)
	d.cause(ctx, w)
	notice()
	seen := observation{
		Section: sectionDrift, Failure: fmt.Sprintf("%s (%s)", d.failure, state), Produced: d.produced,
		Headscale: w.headscale.Version(), Wanted: d.created, Note: "reason: " + string(d.reason),
	}
	w.healsInto(ctx, &seen, before)
	consumer.into(&seen)
	w.hears(ctx, d.reason) // It is logged after the write that heals.
	Expect(seen.Created).To(BeNumerically("<=", d.created))
	note(seen)
}

func edit(change func(*corev1.Secret)) func(context.Context, *world) {
	return func(ctx context.Context, w *world) {
		GinkgoHelper()
		w.edit(ctx, change)
	}
}

func overwrite(value func(ctx context.Context, w *world) string) func(context.Context, *world) {
	return func(ctx context.Context, w *world) {
		GinkgoHelper()
		text := value(ctx, w)
		w.edit(ctx, func(s *corev1.Secret) { s.Data[v1beta1.SecretDataKey] = []byte(text) })
	}
}

func randomText(bytes int) string {
	buffer := make([]byte, bytes)
	_, _ = rand.Read(buffer) // never fails
	return hex.EncodeToString(buffer)
}

// inventedKey has the form of a key.
func inventedKey(context.Context, *world) string {
	return "hskey-api-" + randomText(6) + "-" + randomText(32)
}

// makeOtherKey has somebody else make a key.
func makeOtherKey(ctx context.Context, w *world) {
	GinkgoHelper()
	key, err := w.list.CreateAPIKey(ctx, time.Now().Add(2*time.Hour).Truncate(time.Second))
	Expect(err).NotTo(HaveOccurred())
	w.other = key
	w.foreign, _ = key.Prefix()
}

func otherKey(_ context.Context, w *world) string { return w.other.Reveal() }

func spoilTimes(s *corev1.Secret) {
	s.Annotations[v1beta1.AnnotationExpiration] = "tomorrow"
	s.Annotations[v1beta1.AnnotationCreatedAt] = "yesterday"
}

func shiftExpiration(s *corev1.Secret) {
	s.Annotations[v1beta1.AnnotationExpiration] = time.Now().Add(1000 * time.Hour).UTC().Format(time.RFC3339)
}

func expireByHand(ctx context.Context, w *world) {
	GinkgoHelper()
	Expect(w.list.ExpireAPIKey(ctx, w.storedPrefix(ctx))).To(Succeed())
}

func deleteByHand(ctx context.Context, w *world) {
	GinkgoHelper()
	Expect(w.headscale.Delete(ctx, w.storedPrefix(ctx))).To(Succeed())
}

func (w *world) storedPrefix(ctx context.Context) string {
	GinkgoHelper()
	prefix, known := w.stored(ctx).Prefix()
	Expect(known).To(BeTrue())
	return prefix
}

func restartOnEmpty(ctx context.Context, w *world) {
	GinkgoHelper()
	Expect(w.headscale.Stop()).To(Succeed())
	Expect(w.headscale.UseEmpty()).To(Succeed())
	Expect(w.headscale.Start(ctx)).To(Succeed())
}

// backUpAndRotate leaves a backup in which the key that was replaced is still valid.
func backUpAndRotate(ctx context.Context, w *world) {
	GinkgoHelper()
	Expect(w.headscale.Backup(ctx)).To(Succeed())
	w.requestRotation(ctx)
	w.heals(ctx)
}

func restartOnBackup(ctx context.Context, w *world) {
	GinkgoHelper()
	Expect(w.headscale.Stop()).To(Succeed())
	Expect(w.headscale.UseBackup()).To(Succeed())
	Expect(w.headscale.Start(ctx)).To(Succeed())
}
