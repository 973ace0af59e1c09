package reliability_test

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/process"
)

// A second API Key Manager on a Secret is what an edit of the pod by hand may leave, or a pod
// that does not end on a node that is lost.
var _ = Describe("Two managers on one Secret", func() {
	eachHeadscale("come to rest with one key that works, after each rotation", twoManagers)
})

// twoManagers asks for rotations, which both see at the same moment.
func twoManagers(ctx SpecContext, version string) {
	GinkgoHelper()
	const rotations = 5
	w := newWorld(ctx, sharedHeadscale(ctx, version)).managed(ctx, calm...)
	first := w.manager
	w.manager = nil
	w.run(calm...)
	DeferCleanup(first.Kill)
	Eventually(ctx, func() int { return strings.Count(w.printed.String(), "The API key is up to date") }).Should(BeNumerically(">=", 2))

	before, consumer := w.count(ctx), w.consume(0)
	for i := range rotations {
		w.requestRotation(ctx)
		Eventually(ctx, w.unrest).WithTimeout(healLimit).Should(BeEmpty(), fmt.Sprintf("rotation %d", i))
	}
	seen := observation{Section: sectionRequest, Failure: "rotations requested of two managers on one Secret", Produced: "second process", Headscale: version, Times: rotations}
	consumer.into(&seen)
	seen.Created = w.createdSince(ctx, before)
	for _, manager := range []*process.Process{first, w.manager} {
		Expect(manager.Running()).To(BeTrue())
	}
	// What one creates, the other may take for a key that a crash left, and expire it.
	Expect(seen.Created).To(BeNumerically("<=", 4*rotations))
	Expect(seen.Refusals).To(BeNumerically("<", seen.Calls))
	note(seen)
	// Each writes the certificate of its own endpoint, but not for ever.
	Expect(strings.Count(w.printed.String(), "Wrote the certificate")).To(And(BeNumerically(">=", 1), BeNumerically("<=", 6)))

	By("ending the first one")
	first.Kill()
	w.requestRotation(ctx)
	w.heals(ctx)
}
