package preauthkeys_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
	"infrado.cloud/headscale-operator/test/keyuse"
)

// rotations is how often a key is replaced while somebody registers nodes with it.
const rotations = 20

var _ = Describe("Somebody who reads the key every 20 ms, and registers nodes with it,", func() {
	eachRelease("is never refused with a revocationDelay", func(ctx context.Context, releases []string) {
		for _, tally := range readWhileRotating(ctx, releases, "10s") {
			Expect(tally.Refusals).To(BeZero())
		}
	})
	eachRelease("is refused once in a row at most without one", func(ctx context.Context, releases []string) {
		for _, tally := range readWhileRotating(ctx, releases, "0s") {
			Expect(tally.Streak).To(BeNumerically("<=", 1))
		}
	})
})

// uses is how often a key for one node is used up, in the usual suite and in the slow one.
const uses, manyUses = 1, 5

var _ = Describe("Somebody who reads a key for one node every 20 ms, and registers a node with each,", func() {
	It("finds another one within half a minute", func(ctx SpecContext) { useUp(ctx, newest(), uses) })
	It(fmt.Sprintf("finds another one within half a minute, %d times", manyUses), Label(slow), func(ctx SpecContext) {
		useUp(ctx, versions, manyUses)
	})
})

// useUp registers a node with the key of each Headscale as often as there is another one: so many times
// because it was used, and as many times because another one is asked for.
func useUp(ctx context.Context, releases []string, times int) {
	GinkgoHelper()
	o := newOperators(ctx)
	together(newTailnets(ctx, o, releases), func(t *tailnet) {
		k := t.newObject(ctx, "web", "revocationDelay: 0s")
		k.heals(ctx)
		var used atomic.Value
		used.Store("")
		reader := keyuse.Consume(keyuse.Means{
			Read: func(ctx context.Context) (string, error) {
				stored, err := k.stored(ctx)
				if stored == used.Load() {
					return "", err
				}
				return stored, err
			},
			Honours: func(ctx context.Context, key string) (bool, error) {
				honoured, err := nodetest.Register(ctx, t.server.URL(), key)
				if err == nil {
					used.Store(key)
				}
				return honoured, err
			},
		})
		DeferCleanup(reader.Stop)
		next := func(before string) string {
			GinkgoHelper()
			Eventually(used.Load).WithContext(ctx).ShouldNot(Equal(before), t.version)
			return fmt.Sprint(used.Load())
		}
		key := next("")
		for n := range times {
			began := time.Now()
			key = next(key)
			seen("a key for one node was used, and the next one, too", t.version, time.Since(began))
			k.request(ctx, fmt.Sprint(n))
			key = next(key)
		}
		tally := reader.Stop()
		Expect(tally.Streak).To(BeNumerically("<=", 1), t.version)
		Expect(tally.Calls-tally.Refusals).To(BeNumerically(">", 2*times), t.version)
		seen("keys for one node under a reader", t.version, tally.Calls, "keys,", tally.Refusals, "refused,", tally.Streak, "in a row")
	})
}

// readWhileRotating replaces a reusable key of each Headscale while somebody uses it.
func readWhileRotating(ctx context.Context, releases []string, delay string) []keyuse.Tally {
	GinkgoHelper()
	o := newOperators(ctx)
	tailnets := newTailnets(ctx, o, releases)
	tallies := make([]keyuse.Tally, len(tailnets))
	numbers := make([]int, len(tailnets))
	for i := range numbers {
		numbers[i] = i
	}
	together(numbers, func(i int) {
		k := tailnets[i].newObject(ctx, "web", "reusable: true", "ephemeral: true", "revocationDelay: "+delay)
		key, _ := k.healsWithDelay(ctx, "")
		var used atomic.Value
		used.Store("")
		reader := keyuse.Consume(keyuse.Means{Read: k.stored, Honours: func(ctx context.Context, key string) (bool, error) {
			honoured, err := nodetest.Register(ctx, k.t.server.URL(), key)
			if honoured {
				used.Store(key)
			}
			return honoured, err
		}})
		for n := range rotations {
			// Whoever is refused reads the next key before there is another one.
			Eventually(used.Load).WithContext(ctx).Should(Equal(key))
			k.request(ctx, fmt.Sprint(n))
			key, _ = k.healsWithDelay(ctx, key)
		}
		tallies[i] = reader.Stop()
		Expect(tallies[i].Calls).To(BeNumerically(">=", rotations))
		seen("rotations under a reader, revocationDelay "+delay, k.t.version, rotations, "rotations,", tallies[i].Calls, "nodes,", tallies[i].Refusals, "refused,", tallies[i].Streak, "in a row")
	})
	return tallies
}

// healsWithDelay waits for another key in the Secret, while those before it may still be valid.
func (k *object) healsWithDelay(ctx context.Context, before string) (key string, took time.Duration) {
	GinkgoHelper()
	began := time.Now()
	Eventually(func(g Gomega) {
		stored, err := k.stored(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(stored).NotTo(Or(BeEmpty(), Equal(before)))
		valid, err := k.valid(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(valid).To(ContainElement(HaveField("ID", k.resource(ctx).Status.KeyID)))
		key = stored
	}).WithContext(ctx).Should(Succeed(), k.t.version+": "+k.name)
	return key, time.Since(began)
}
