package reliability_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/rotation"
)

const sectionKilled = "killed"

// killedSteps are the steps that a manager goes through, by what it does. A first key
// replaces none, so there is none to expire.
var killedSteps = map[string][]rotation.Step{
	"first key": {rotation.StepIntend, rotation.StepCreate, rotation.StepStore},
	"rotation":  {rotation.StepIntend, rotation.StepCreate, rotation.StepStore, rotation.StepExpire, rotation.StepForget},
}

// markLimit is how long a mark of a key that never appears stays at most: until then it
// is looked for, and at the next look it goes.
const markLimit = rotation.PendingTimeout + healLimit

var _ = Describe("Killed when it has announced a key, a manager", Label(slow), func() {
	It("looks for it for two minutes, and closes the ledger", func(ctx SpecContext) {
		together(versions, func(version string) {
			w := newWorld(ctx, sharedHeadscale(ctx, version), faulty)
			before := w.count(ctx)
			w.runUntilKilled(ctx, rotation.StepIntend, calm...)
			w.run(calm...)
			w.heals(ctx)
			began := time.Now()
			Expect(w.unsettled(ctx)).To(Equal(keyOnItsWay))
			Eventually(ctx, w.unsettled).WithTimeout(markLimit).Should(BeEmpty())
			seen := observation{
				Section: sectionKilled, Failure: "SIGKILL after intend (first key), until the mark of the key that was never made is gone",
				Produced: "the program kills itself there", Headscale: version, Wanted: 1,
			}
			w.healed(ctx, &seen, before, time.Since(began))
			Expect(seen.Created).To(Equal(1))
			note(seen)
		})
	})
})

var _ = Describe("Killed at a step, a manager", func() {
	for _, doing := range []string{"first key", "rotation"} {
		for _, step := range killedSteps[doing] {
			It(fmt.Sprintf("leaves one key: %s, after %s", doing, step), func(ctx SpecContext) {
				together(versions, func(version string) { killAfterStep(ctx, version, doing, step) })
			})
		}
	}
})

func killAfterStep(ctx context.Context, version, doing string, step rotation.Step) {
	GinkgoHelper()
	w := newWorld(ctx, sharedHeadscale(ctx, version))
	if doing == "rotation" {
		w.managed(ctx, calm...).terminate()
		w.requestRotation(ctx)
	}
	before, consumer := w.count(ctx), w.consume(0)
	w.runUntilKilled(ctx, step, calm...)
	w.run(calm...)
	seen := observation{
		Section: sectionKilled, Failure: fmt.Sprintf("SIGKILL after %s (%s)", step, doing),
		Produced: "the program kills itself there", Headscale: version, Wanted: 1,
	}
	w.healsInto(ctx, &seen, before)
	consumer.into(&seen)
	Expect(seen.Created).To(BeNumerically("<=", 2))
	Expect(seen.Streak).To(BeNumerically("<=", 1))
	note(seen)
}

// healsInto waits for rest and writes into the observation what it took since the count.
func (w *world) healsInto(ctx context.Context, o *observation, before census) {
	GinkgoHelper()
	w.healed(ctx, o, before, w.heals(ctx))
}

// healed writes down a healing that took so long.
func (w *world) healed(ctx context.Context, o *observation, before census, took time.Duration) {
	GinkgoHelper()
	live, err := w.live(ctx)
	Expect(err).NotTo(HaveOccurred())
	o.Heal = append(o.Heal, took.Seconds())
	o.Created += w.createdSince(ctx, before)
	o.Left = len(live)
}
