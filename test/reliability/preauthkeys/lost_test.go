package preauthkeys_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/test/reliability/apiproxy"
)

// lostAnswers are the failures of a call of Headscale, and how many keys may be made then.
var lostAnswers = []struct {
	failure string
	fault   headscaletest.Fault
	created int
}{
	{"create: the key is made, the answer is lost", headscaletest.Fault{On: headscaletest.CreatePreAuthKey, Do: headscaletest.LoseAnswer, Times: 1}, 2},
	{"create: the answer is lost twice", headscaletest.Fault{On: headscaletest.CreatePreAuthKey, Do: headscaletest.LoseAnswer, Times: 2}, 3},
	{"create: the request is lost", headscaletest.Fault{On: headscaletest.CreatePreAuthKey, Do: headscaletest.Drop, Times: 1}, 1},
	{"create: refused (database is locked)", headscaletest.Fault{On: headscaletest.CreatePreAuthKey, Do: headscaletest.Refuse, Times: 1}, 1},
	{"expire: the key is expired, the answer is lost", headscaletest.Fault{On: headscaletest.ExpirePreAuthKey, Do: headscaletest.LoseAnswer, Times: 1}, 1},
	{"expire: the request is lost", headscaletest.Fault{On: headscaletest.ExpirePreAuthKey, Do: headscaletest.Drop, Times: 1}, 1},
	{"expire: refused (database is locked)", headscaletest.Fault{On: headscaletest.ExpirePreAuthKey, Do: headscaletest.Refuse, Times: 1}, 1},
	{"list: the answer is lost", headscaletest.Fault{On: headscaletest.ListPreAuthKeys, Do: headscaletest.LoseAnswer, Times: 1}, 1},
}

// soon is how long a replacement takes at most in which one call or two fail: a few attempts, and less
// than it takes until Headscale is read again anyway.
const soon = 28 * time.Second

var _ = Describe("When an answer of Headscale is lost, an operator", func() {
	eachRelease("leaves one key", func(ctx context.Context, releases []string) {
		o := newOperators(ctx)
		together(newTailnets(ctx, o, releases), func(t *tailnet) {
			k := t.newObject(ctx, "web")
			key, _ := k.heals(ctx)
			for i, lost := range lostAnswers {
				before := k.made(ctx)
				t.socket.Inject(lost.fault)
				k.set(ctx, fmt.Sprintf("ephemeral: %t", i%2 == 0))
				var took time.Duration
				key, took = k.healsFrom(ctx, key)
				t.socket.ClearFaults()
				Expect(k.made(ctx)-before).To(BeNumerically("<=", lost.created), t.version+": "+lost.failure)
				Expect(took).To(BeNumerically("<", soon), t.version+": "+lost.failure)
				seen(lost.failure, t.version, took)
			}
			k.opens(ctx)
		})
	})
})

// made is how many keys were made for the object.
func (k *object) made(ctx context.Context) int {
	GinkgoHelper()
	user, err := k.user(ctx)
	Expect(err).NotTo(HaveOccurred())
	return k.t.socket.madeFor(user)
}

// writesOfARotation is how many writes a replacement takes at most: three of the Secret, the status,
// the finalizer and an event.
const writesOfARotation = 6

var _ = Describe("When an answer of the API server is lost, an operator", func() {
	eachRelease("leaves one key", func(ctx context.Context, releases []string) {
		for _, version := range releases {
			loseWrites(ctx, version)
		}
	})

	It("goes on when it is back", func(ctx SpecContext) {
		o := newOperators(ctx)
		t := newTailnets(ctx, o, newest())[0]
		k := t.newObject(ctx, "web")
		key, _ := k.heals(ctx)

		By("cutting all connections, and asking for another key")
		Expect(o.api.Leave()).To(Succeed())
		k.request(ctx, "away")
		Expect(o.api.Return()).To(Succeed())
		key, took := k.healsFrom(ctx, key)
		seen("the API server is away", t.version, took)

		By("having requests hang")
		resume := o.api.Hang()
		k.request(ctx, "hanging")
		Consistently(func() (string, error) { return k.stored(ctx) }).WithContext(ctx).WithTimeout(3 * time.Second).Should(Equal(key))
		resume()
		_, took = k.healsFrom(ctx, key)
		seen("the API server hangs", t.version, took)
		k.opens(ctx)
	})
})

// loseWrites loses each write of a replacement in turn: the request, or only its answer.
func loseWrites(ctx context.Context, version string) {
	GinkgoHelper()
	o := newOperators(ctx)
	t := newTailnets(ctx, o, []string{version})[0]
	k := t.newObject(ctx, "web")
	key, _ := k.heals(ctx)
	for number := 1; number <= writesOfARotation; number++ {
		for how, action := range map[string]apiproxy.Action{"answer": apiproxy.LoseReply, "request": apiproxy.Drop} {
			before := k.made(ctx)
			o.api.OnWrite(func(n int) apiproxy.Action {
				if n == number {
					return action
				}
				return apiproxy.Pass
			})
			k.set(ctx, fmt.Sprintf("ephemeral: %t", !k.resource(ctx).Spec.Ephemeral))
			var took time.Duration
			key, took = k.healsFrom(ctx, key)
			o.api.OnWrite(nil)
			Expect(k.made(ctx)-before).To(BeNumerically("<=", 2), fmt.Sprintf("%s: the %s of write %d is lost", version, how, number))
			seen(fmt.Sprintf("the %s of write %d is lost", how, number), version, took)
		}
	}
	k.opens(ctx)
}
