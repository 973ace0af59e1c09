package reliability_test

import (
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

var _ = Describe("When Headscale's clock differs, a manager", func() {
	for _, skew := range []time.Duration{-5 * time.Minute, 5 * time.Minute} {
		It("makes a key and rotates it, by "+skew.String(), func(ctx SpecContext) {
			h := &fakeHeadscale{Server: headscaletest.New(filepath.Join(newDir(), "hs.sock"), headscaletest.V030,
				headscaletest.WithClock(func() time.Time { return time.Now().Add(skew) }))}
			Expect(h.Start(ctx)).To(Succeed())
			DeferCleanup(h.Stop)
			w := newWorld(ctx, h).managed(ctx, calm...)
			before := w.count(ctx)
			w.requestRotation(ctx)
			seen := observation{
				Section: sectionDrift, Failure: "Headscale's clock differs by " + skew.String() + ", and a rotation",
				Produced: "clock of the contract server", Headscale: contractServer, Wanted: 1,
			}
			w.healsWithConsumer(ctx, &seen, before)
			Expect(seen.Created).To(Equal(1))
			Expect(h.ValidKeys()).To(HaveLen(2), "the one in the Secret, and somebody else's")
			note(seen)
		})
	}
})
