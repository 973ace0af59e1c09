package reliability_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/test/reliability/observation"
)

const sectionKilled = "killed"

// killedSteps are the steps that a manager goes through, by what it does. A first key
// replaces none, so there is none to expire.
var killedSteps = map[string][]apikey.Step{
	"first key": {apikey.StepIntend, apikey.StepCreate, apikey.StepStore},
	"rotation":  {apikey.StepIntend, apikey.StepCreate, apikey.StepStore, apikey.StepExpire, apikey.StepForget},
}

var _ = Describe("Killed at a step, a manager", func() {
	for _, doing := range []string{"first key", "rotation"} {
		for _, step := range killedSteps[doing] {
			for _, version := range versions {
				It(fmt.Sprintf("leaves one key: %s, after %s, Headscale %s", doing, step, version), func(ctx SpecContext) {
					w := newWorld(ctx, sharedHeadscale(ctx, version))
					if doing == "rotation" {
						w.managed(ctx, calm...).terminate()
						w.requestRotation(ctx)
					}
					before, consumer := w.count(ctx), w.consume(0)
					w.runUntilKilled(ctx, step, calm...)
					w.run(calm...)
					seen := observation.Observation{
						Section: sectionKilled, Failure: fmt.Sprintf("SIGKILL after %s (%s)", step, doing),
						Produced: "the program kills itself there", Headscale: version, Wanted: 1,
					}
					w.healsInto(ctx, &seen, before)
					consumer.into(&seen)
					Expect(seen.Minted).To(BeNumerically("<=", 2))
					Expect(seen.Streak).To(BeNumerically("<=", 1))
					note(seen)
				})
			}
		}
	}
})

// healsInto waits for rest and writes into the observation what it took since the count.
func (w *world) healsInto(ctx context.Context, o *observation.Observation, before census) {
	GinkgoHelper()
	w.healed(ctx, o, before, w.heals(ctx))
}

// healed writes down a healing that took so long.
func (w *world) healed(ctx context.Context, o *observation.Observation, before census, took time.Duration) {
	GinkgoHelper()
	live, err := w.live(ctx)
	Expect(err).NotTo(HaveOccurred())
	o.Heal = append(o.Heal, took.Seconds())
	o.Minted += w.mintedSince(ctx, before)
	o.Left = len(live)
}
