package reliability_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

const (
	// killsPerVersion and manyKillsPerVersion are how often a manager is killed in the
	// usual suite and in the slow one: 20 and 200 times in all.
	killsPerVersion     = 5
	manyKillsPerVersion = 50
	// longestLife is how long after its start a manager is killed at the latest. A
	// start and a rotation take about half of it on an idle machine.
	longestLife = 500 * time.Millisecond
)

var _ = Describe("Killed at random times, a manager", func() {
	It(fmt.Sprintf("leaves one key, %d times", killsPerVersion*len(versions)), func(ctx SpecContext) {
		together(versions, func(version string) { killAtRandom(ctx, version, killsPerVersion) })
	})
	It(fmt.Sprintf("leaves one key, %d times", manyKillsPerVersion*len(versions)), Label(slow), func(ctx SpecContext) {
		for _, version := range versions { // one after the other, or most kills would hit a start
			killAtRandom(ctx, version, manyKillsPerVersion)
		}
	})
})

// killAtRandom kills managers that have a first key to make, or a rotation.
func killAtRandom(ctx context.Context, version string, times int) {
	GinkgoHelper()
	seed := uint64(GinkgoRandomSeed())
	random := rand.New(rand.NewPCG(seed, 0))
	By(fmt.Sprintf("killing with the seed %d (-ginkgo.seed)", seed))
	w := newWorld(ctx, sharedHeadscale(ctx, version), faulty)
	before, consumer := w.count(ctx), w.consume(0)
	interrupted := 0
	for range times {
		w.wantKey(ctx, random)
		ledger := w.ledger(ctx)
		w.run(brisk...)
		life := time.NewTimer(time.Duration(random.Int64N(int64(longestLife))))
		select {
		case <-life.C:
		case <-w.manager.Exited():
			Fail("the manager ended by itself")
		}
		w.kill()
		if now := w.ledger(ctx); now != "" && now != ledger {
			interrupted++
		}
	}
	seen := observation{
		Section: sectionKilled, Failure: "SIGKILL at a random time", Times: times, Headscale: version, Wanted: times,
		Produced: "killed up to 0.5 s after a start with a first key or a rotation to do",
		Midway:   interrupted,
	}
	w.run(calm...)
	w.healsInto(ctx, &seen, before)
	consumer.into(&seen)
	Expect(seen.Created).To(BeNumerically("<=", 2*times+1), "at most one that is forgotten, and one that is kept, each time")
	note(seen)
}

// wantKey has the next manager make a key: the Secret is deleted one time in four,
// which makes the next a first key, else a rotation is requested.
func (w *world) wantKey(ctx context.Context, random *rand.Rand) {
	GinkgoHelper()
	if random.IntN(4) == 0 {
		w.deleteSecret(ctx)
		return
	}
	if _, err := w.secret(ctx); err == nil {
		w.requestRotation(ctx)
	}
}

// ledger is what the Secret says of keys on their way and of keys to retire.
func (w *world) ledger(ctx context.Context) string {
	GinkgoHelper()
	secret, err := w.secret(ctx)
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return secret.Annotations[v1beta1.AnnotationPending] + secret.Annotations[v1beta1.AnnotationRetiring]
}
