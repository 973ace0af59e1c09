package reliability_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const sectionUpgrade = "upgrade"

var _ = Describe("When Headscale is upgraded, a manager", func() {
	for _, state := range []string{"manager running", "manager stopped meanwhile"} {
		It("keeps the key or replaces it, on one database: "+state, func(ctx SpecContext) {
			built := slices.DeleteFunc(slices.Clone(versions), func(v string) bool { return v == contractServer })
			w := newWorld(ctx, freshHeadscale(ctx, built[0])).managed(ctx, calm...)
			for i, version := range built[1:] {
				key := w.storedPrefix(ctx)
				before, consumer := w.count(ctx), w.consume(0)
				w.upgrade(ctx, version, state == "manager running")
				seen := observation{
					Section: sectionUpgrade, Failure: fmt.Sprintf("%s to %s (%s)", built[i], version, state),
					Produced: "the next release on the same database", Headscale: version,
				}
				w.healsInto(ctx, &seen, before)
				Expect(seen.Created).To(BeNumerically("<=", 1))
				seen.Note = "the key was replaced"
				if w.storedPrefix(ctx) == key {
					seen.Note = "the key went on working"
				}
				By("rotating on the new release")
				w.requestRotation(ctx)
				w.heals(ctx)
				consumer.into(&seen)
				note(seen)
			}
		})
	}

	It("follows it from gRPC to HTTP and back", func(ctx SpecContext) {
		old := freshHeadscale(ctx, latestVersions[0])
		w := newWorld(ctx, old).managed(ctx, calm...)
		before := w.count(ctx)

		By("starting the contract server on the socket, with the key in its database")
		next := &fakeHeadscale{Server: headscaletest.New(old.SocketPath(), headscaletest.V030)}
		DeferCleanup(next.Stop)
		next.Database().Insert(w.listedRecord(ctx))
		w.moveTo(ctx, next)
		seen := observation{
			Section: sectionUpgrade, Failure: latestVersions[0] + " to v0.30: the socket speaks HTTP",
			Produced: "the contract server on the same socket", Headscale: contractServer,
		}
		w.healsWithConsumer(ctx, &seen, before)
		Expect(seen.Created).To(BeZero())
		seen.Note = "the key went on working"
		note(seen)

		By("rotating over HTTP")
		w.requestRotation(ctx)
		w.heals(ctx)
		Expect(next.CreatedKeys()).To(Equal(1))

		By("going back to gRPC, where the first key is still valid and the second unknown")
		w.moveTo(ctx, old)
		seen = observation{
			Section: sectionUpgrade, Failure: "v0.30 back to " + latestVersions[0] + ": the socket speaks gRPC, the database is the old one",
			Produced: "Headscale on the same socket", Headscale: latestVersions[0], Wanted: 1,
			Note: "the key was replaced, the older one that is still valid there was expired",
		}
		w.healsWithConsumer(ctx, &seen, before)
		Expect(seen.Created).To(Equal(1))
		note(seen)
	})

	It("replaces a key that the new version does not accept", func(ctx SpecContext) {
		h := &fakeHeadscale{Server: headscaletest.New(filepath.Join(newDir(), "hs.sock"), headscaletest.V027)}
		Expect(h.Start(ctx)).To(Succeed())
		DeferCleanup(h.Stop)
		w := newWorld(ctx, h)
		w.plantOldKey(ctx, h)
		w.managed(ctx, calm...)
		Expect(w.storedPrefix(ctx)).To(HaveLen(10))
		before := w.count(ctx)
		Expect(h.Stop()).To(Succeed())
		h.SetRelease(headscaletest.V028)
		Expect(h.Start(ctx)).To(Succeed())
		seen := observation{
			Section: sectionUpgrade, Failure: "the new version does not accept keys of v0.24",
			Produced: "stand-in for Headscale, 0.27 to 0.28", Headscale: "v0.28 (stand-in)", Wanted: 1,
			Note: "reason: " + string(apikey.ReasonKeyNotAccepted),
		}
		w.healsWithConsumer(ctx, &seen, before)
		Expect(seen.Created).To(Equal(1))
		Expect(w.news()).To(ContainSubstring(saying(apikey.ReasonKeyNotAccepted)))
		note(seen)
	})
})

// upgrade stops Headscale and starts another release on the same database.
func (w *world) upgrade(ctx context.Context, version string, running bool) {
	GinkgoHelper()
	h, ok := w.headscale.(*realHeadscale)
	Expect(ok).To(BeTrue())
	if !running {
		w.terminate()
	}
	Expect(h.Stop()).To(Succeed())
	h.Binary, h.version = findServers(version).Headscale[version], version
	Expect(h.Start(ctx)).To(Succeed())
	if !running {
		w.run(calm...)
	}
}

// moveTo stops Headscale and starts another one that listens on the same socket.
func (w *world) moveTo(ctx context.Context, h installation) {
	GinkgoHelper()
	Expect(w.headscale.Stop()).To(Succeed())
	w.headscale = h
	Expect(h.Start(ctx)).To(Succeed())
}

// healsWithConsumer is healsInto while a consumer looks on.
func (w *world) healsWithConsumer(ctx context.Context, o *observation, before census) {
	GinkgoHelper()
	consumer := w.consume(0)
	w.healsInto(ctx, o, before)
	consumer.into(o)
}

// listedRecord is the stored key as Headscale's database has it.
func (w *world) listedRecord(ctx context.Context) headscaletest.Record {
	GinkgoHelper()
	live, err := w.live(ctx)
	Expect(err).NotTo(HaveOccurred())
	Expect(live).To(HaveLen(1))
	return headscaletest.Record{
		Prefix: live[0].Prefix, Text: w.stored(ctx).Reveal(), CreatedAt: live[0].CreatedAt, Expiration: &live[0].Expiration,
	}
}

// plantOldKey makes it look as if a manager had stored a key of Headscale v0.24, which
// is longer in its prefix than those that came after.
func (w *world) plantOldKey(ctx context.Context, h *fakeHeadscale) {
	GinkgoHelper()
	prefix, created := randomText(5), time.Now().Truncate(time.Second)
	text, expiration := prefix+"."+randomText(22)[:43], w.tag.Expiration(created.Add(time.Hour))
	h.Database().Insert(headscaletest.Record{Prefix: prefix, Text: text, CreatedAt: created, Expiration: &expiration})
	digest := sha256.Sum256([]byte(text))
	secret := apikey.WriteRecord(rotation.Record{
		Text: headscale.NewKey(text), ID: prefix, Digest: hex.EncodeToString(digest[:]), Expiration: expiration, CreatedAt: created,
	}, &corev1.Secret{Type: corev1.SecretTypeOpaque})
	secret.Namespace, secret.Name = w.namespace, v1beta1.DefaultSecretName
	Expect(admin.Create(ctx, secret)).To(Succeed())
}
