package reliability_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/apikey"
)

const (
	sectionOverlap = "overlap"
	sectionRequest = "request"
)

const (
	// revocationDelay is how long an old key stays valid in these specs, and lag how
	// much later than others a consumer learns of a new one. On a busy machine Headscale may answer a
	// call seconds after the key was read for it.
	revocationDelay = 12 * time.Second
	lag             = 2 * time.Second
	// fewRotations and manyRotations are how many are looked at.
	fewRotations  = 3
	manyRotations = 10
)

// steady rotates every eight seconds: between two rotations a consumer gets an answer for the key
// of the first one on a busy machine, too.
var steady = []string{"--expiration=1h", "--rotation-buffer=59m52s"}

var _ = Describe("When it rotates, a manager", func() {
	for _, count := range []struct {
		rotations int
		labels    Labels
	}{{fewRotations, nil}, {manyRotations, Label(slow)}} {
		It(fmt.Sprintf("lets a consumer with a lag go on, %d rotations", count.rotations), count.labels, func(ctx SpecContext) {
			together(latestVersions, func(version string) { overlap(ctx, version, count.rotations) })
		})
		It(fmt.Sprintf("refuses the old key at once, %d rotations", count.rotations), count.labels, func(ctx SpecContext) {
			together(latestVersions, func(version string) { rotateAtOnce(ctx, version, count.rotations) })
		})
	}

	eachHeadscale("does so when it is asked to, once for each request", rotateOnRequest)
})

func rotateOnRequest(ctx SpecContext, version string) {
	GinkgoHelper()
	w := newWorld(ctx, sharedHeadscale(ctx, version)).managed(ctx, calm...)
	before, consumer := w.count(ctx), w.consume(0)
	w.requestRotation(ctx)
	seen := observation{
		Section: sectionRequest, Failure: "rotate-requested-at set on the Secret, touched, set again with the manager down",
		Produced: "annotation", Headscale: version, Times: 2, Wanted: 2,
	}
	w.healsInto(ctx, &seen, before)
	Expect(seen.Created).To(Equal(1))

	By("touching the Secret, which is no request")
	w.annotate(ctx, foreignName, foreignValue)
	Consistently(ctx, func() int { return w.createdSince(ctx, before) }).WithTimeout(time.Second).Should(Equal(1))

	By("asking while the manager is down")
	w.terminate()
	w.requestRotation(ctx)
	before = w.count(ctx)
	w.run(calm...)
	w.healsInto(ctx, &seen, before)
	consumer.into(&seen)
	Expect(seen.Created).To(Equal(2))
	Expect(seen.Streak).To(BeNumerically("<=", 1))
	note(seen)
}

// overlap rotates with a revocation delay. After each rotation the manager is killed
// and started again while the old key is still valid.
func overlap(ctx context.Context, version string, rotations int) {
	GinkgoHelper()
	settings := append([]string{"--revocation-delay=" + revocationDelay.String()}, calm...)
	w := newWorld(ctx, sharedHeadscale(ctx, version)).managed(ctx, settings...)
	before, consumer := w.count(ctx), w.consume(lag)
	seen := observation{
		Section: sectionOverlap, Failure: fmt.Sprintf("consumer that learns of a new key %s late, --revocation-delay=%s", lag, revocationDelay),
		Produced: "manager killed and restarted after each rotation", Headscale: version, Times: rotations, Wanted: rotations,
	}
	for range rotations {
		old := w.storedPrefix(ctx)
		w.requestRotation(ctx)
		Eventually(ctx, w.retiring).Should(ConsistOf(old))
		w.kill()
		w.run(settings...)
		w.heals(ctx)
	}
	consumer.into(&seen)
	seen.Created = w.createdSince(ctx, before)
	seen.Left = 1 // heals has counted them
	Expect(seen.Refusals).To(BeZero())
	Expect(seen.Calls).To(BeNumerically(">", rotations))
	Expect(seen.Created).To(Equal(rotations))
	note(seen)
}

// retiring are the prefixes of the keys that were replaced and are still valid.
func (w *world) retiring(ctx context.Context) ([]string, error) {
	secret, err := w.secret(ctx)
	if err != nil {
		return nil, err
	}
	var prefixes []string
	for _, mark := range apikey.ReadRecord(secret).Retiring {
		prefixes = append(prefixes, mark.ID)
	}
	return prefixes, nil
}

// rotateAtOnce rotates by the settings, without a delay. The old key is refused, and a
// consumer that reads afresh is refused at most once in a row.
func rotateAtOnce(ctx context.Context, version string, rotations int) {
	GinkgoHelper()
	w := newWorld(ctx, sharedHeadscale(ctx, version), faulty).managed(ctx, steady...)
	before, consumer := w.count(ctx), w.consume(0)
	Eventually(ctx, func() int { return w.createdSince(ctx, before) }).WithTimeout(time.Duration(rotations) * healLimit).
		Should(BeNumerically(">=", rotations))
	w.terminate()
	w.run(calm...)
	seen := observation{
		Section: sectionOverlap, Failure: "consumer that reads the Secret before each call, no delay",
		Produced: "a rotation every eight seconds", Headscale: version, Times: rotations, Wanted: rotations,
	}
	w.healsInto(ctx, &seen, before)
	consumer.into(&seen)
	seen.Heal = nil
	Expect(seen.Streak).To(BeNumerically("<=", 1))
	for _, old := range w.seen.all() {
		if old != w.stored(ctx).Reveal() {
			Expect(w.headscale.Honours(ctx, old)).To(BeFalse())
		}
	}
	note(seen)
}
