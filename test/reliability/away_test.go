package reliability_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/test/reliability/apiproxy"
)

const sectionAway = "away"

// Absences of a server: short ones in the usual suite, long ones in the slow one.
const (
	shortAbsence = 3 * time.Second
	longAbsence  = time.Minute
)

// linesOfAnAbsence is how many lines a manager may print while servers are away: that
// each of them is, and that it waits.
const linesOfAnAbsence = 3

// absence is who is away, and when that begins.
type absence struct {
	failure, produced string
	leave, comeBack   func(ctx context.Context, w *world)
}

var (
	headscaleAway = absence{
		"Headscale is away", "stopped and started",
		func(_ context.Context, w *world) { Expect(w.headscale.Stop()).To(Succeed()) },
		func(ctx context.Context, w *world) { Expect(w.headscale.Start(ctx)).To(Succeed()) },
	}
	apiServerAway = absence{
		"the API server is away", "proxy before it refuses connections",
		func(_ context.Context, w *world) { Expect(w.api.Leave()).To(Succeed()) },
		func(_ context.Context, w *world) { Expect(w.api.Return()).To(Succeed()) },
	}
	bothAway = absence{
		"Headscale and the API server are away", "both of the above",
		func(ctx context.Context, w *world) { headscaleAway.leave(ctx, w); apiServerAway.leave(ctx, w) },
		func(ctx context.Context, w *world) { apiServerAway.comeBack(ctx, w); headscaleAway.comeBack(ctx, w) },
	}
)

var _ = Describe("When a server is away, a manager", func() {
	for _, length := range []struct {
		time.Duration
		labels Labels
	}{{shortAbsence, nil}, {longAbsence, Label(slow)}} {
		for _, who := range []absence{headscaleAway, apiServerAway, bothAway} {
			It(fmt.Sprintf("rotates after %s: %s", length.Duration, who.failure), length.labels, func(ctx SpecContext) {
				together(latestVersions, func(version string) { rotateAfterAbsence(ctx, who, version, length.Duration) })
			})
		}
	}
	It("has not lost the key that was not stored", func(ctx SpecContext) {
		together(latestVersions, func(version string) { storeAfterAbsence(ctx, version) })
	})
})

// storeAfterAbsence has the API server go away when a key was made and is to be stored.
func storeAfterAbsence(ctx context.Context, version string) {
	GinkgoHelper()
	w := newWorld(ctx, sharedHeadscale(ctx, version)).managed(ctx, calm...)
	before, consumer := w.count(ctx), w.consume(0)
	left := make(chan error, 1)
	w.api.OnWrite(func(number int) apiproxy.Action {
		if number != 2 {
			return apiproxy.Pass
		}
		go func() { left <- w.api.Leave() }() // Leave waits for this request.
		return apiproxy.Drop
	})
	w.requestRotation(ctx)
	Eventually(ctx, left).Should(Receive(BeNil()))
	w.staysUp(ctx, shortAbsence)
	w.api.OnWrite(nil)
	Expect(w.api.Return()).To(Succeed())
	seen := observation{
		Section: sectionAway, Failure: "the API server goes away between create and store, for " + shortAbsence.String(),
		Produced: apiServerAway.produced, Headscale: version, Wanted: 1,
	}
	w.healsInto(ctx, &seen, before)
	consumer.into(&seen)
	w.expectCreated(seen, 1)
	Expect(seen.Streak).To(BeNumerically("<=", 1))
	note(seen)
}

// rotateAfterAbsence asks for a rotation while servers are away.
func rotateAfterAbsence(ctx context.Context, who absence, version string, length time.Duration) {
	GinkgoHelper()
	w := newWorld(ctx, freshHeadscale(ctx, version)).managed(ctx, calm...)
	w.hears(ctx, rotation.ReasonUpToDate)
	w.rests(ctx)
	before, consumer := w.count(ctx), w.consume(0)
	w.hear()
	who.leave(ctx, w)
	w.requestRotation(ctx)
	w.staysUp(ctx, length)
	lines := countLines(w.news())
	who.comeBack(ctx, w)
	seen := observation{
		Section: sectionAway, Failure: fmt.Sprintf("%s for %s, a rotation is due meanwhile", who.failure, length),
		Produced: who.produced, Headscale: version, Wanted: 1,
		Note: fmt.Sprintf("lines logged meanwhile: %d", lines),
	}
	w.healsInto(ctx, &seen, before)
	consumer.into(&seen)
	Expect(lines).To(BeNumerically("<=", linesOfAnAbsence))
	Expect(seen.Created).To(Equal(1))
	Expect(seen.Streak).To(BeNumerically("<=", 1))
	note(seen)
}

// staysUp watches the manager for a while.
func (w *world) staysUp(ctx context.Context, length time.Duration) {
	GinkgoHelper()
	Consistently(ctx, w.manager.Running).WithTimeout(length).WithPolling(100 * time.Millisecond).Should(BeTrue())
}
