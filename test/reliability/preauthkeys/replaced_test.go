package preauthkeys_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
)

// replacements is how often the operator is replaced, or asked for a key of two.
const replacements = 4

var _ = Describe("Replaced while it works, an operator", func() {
	eachRelease("hands over to the next one, which leaves one key", func(ctx context.Context, releases []string) {
		o := newOperators(ctx, "--leader-elect")
		tailnets := newTailnets(ctx, o, releases)
		objects := make([]*object, len(tailnets))
		keys := make([]string, len(tailnets))
		for i, t := range tailnets {
			objects[i] = t.newObject(ctx, "web")
			keys[i], _ = objects[i].heals(ctx)
		}
		for n := range replacements {
			for _, k := range objects {
				k.set(ctx, fmt.Sprintf("ephemeral: %t", n%2 == 0))
			}
			began := time.Now()
			o.replace()
			for i, k := range objects {
				keys[i], _ = k.healsFrom(ctx, keys[i])
			}
			seen("the operator was replaced", fmt.Sprint(releases), time.Since(began))
		}
		for _, k := range objects {
			k.opens(ctx)
		}
	})
})

// Two operators at a time are what leader election keeps away, but for a Lease that is lost, or an
// operator of another namespace that somebody forgot.
var _ = Describe("Two operators without leader election", func() {
	eachRelease("come to rest with one key of each object", func(ctx context.Context, releases []string) {
		o := newOperators(ctx)
		tailnets := newTailnets(ctx, o, releases)
		o.start()
		together(tailnets, func(t *tailnet) {
			k := t.newObject(ctx, "web")
			key, _ := k.heals(ctx)
			before := k.made(ctx)
			for n := range replacements {
				k.request(ctx, fmt.Sprint(n))
				key, _ = k.healsFrom(ctx, key)
			}
			// What one makes, the other may take for a key that a crash left, several times on a busy machine.
			Eventually(func(g Gomega) {
				made := k.made(ctx)
				g.Consistently(k.made).WithArguments(ctx).Within(3 * time.Second).ProbeEvery(300 * time.Millisecond).Should(Equal(made))
			}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
			// One that waits for its next attempt may expire the key while a node registers with it.
			Eventually(func() (bool, error) {
				stored, err := k.stored(ctx)
				if err != nil || stored == "" {
					return false, err
				}
				return nodetest.Register(ctx, t.server.URL(), stored)
			}).WithContext(ctx).Should(BeTrue(), t.version)
			seen("two operators", t.version, k.made(ctx)-before, "keys for", replacements)
		})
		for _, p := range o.running {
			Expect(p.Running()).To(BeTrue())
		}
	})
})
