package preauthkeys_test

import (
	"context"
	"maps"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// spoilings are what somebody else does to a key.
var spoilings = map[string]func(ctx context.Context, k *object){
	"used by a node":  func(ctx context.Context, k *object) { k.opens(ctx) },
	"expired by hand": func(ctx context.Context, k *object) { k.expireByHand(ctx) },
	"deleted by hand": func(ctx context.Context, k *object) { k.deleteByHand(ctx) },
}

var _ = Describe("A key that cannot be used any more", func() {
	It("is replaced within half a minute", func(ctx SpecContext) {
		o := newOperators(ctx)
		together(newTailnets(ctx, o, versions), func(t *tailnet) {
			together(slices.Collect(maps.Keys(spoilings)), func(how string) {
				k := t.newObject(ctx, strings.Fields(how)[0])
				before, _ := k.heals(ctx)
				spoilings[how](ctx, k)
				_, took := k.healsFrom(ctx, before)
				k.opens(ctx)
				seen("the key was "+how, t.version, took)
			})
		})
	})

	It("counts as used, and is left with reissue: Never", func(ctx SpecContext) {
		o := newOperators(ctx)
		t := newTailnets(ctx, o, newest())[0]
		once, again := t.newObject(ctx, "once", "reissue: Never"), t.newObject(ctx, "again", "reusable: true")
		key, _ := once.heals(ctx)
		once.opens(ctx)
		reused, _ := again.heals(ctx)
		for range 3 {
			again.opens(ctx)
		}
		Eventually(func() string { return once.reason(ctx) }).WithContext(ctx).Should(Equal(v1beta1.ReasonUsed))
		Expect(once.resource(ctx).Status.Used).To(BeEquivalentTo(1))
		Expect(once.stored(ctx)).To(Equal(key))
		still, _ := again.heals(ctx)
		Expect(still).To(Equal(reused), "any number of nodes may register with it")
		Expect(again.resource(ctx).Status.Used).To(BeZero())

		By("showing that to people")
		table, err := world.Plane.Kubectl(ctx, "get", "hspak", "-n", t.namespace)
		Expect(err).NotTo(HaveOccurred())
		lines := strings.Split(strings.TrimSpace(table), "\n")
		Expect(strings.Fields(lines[0])).To(Equal([]string{"NAME", "HEADSCALE", "USER", "REUSABLE", "EPHEMERAL", "USED", "EXPIRES", "READY", "AGE"}))
		Expect(strings.Fields(lines[2])[:6]).To(Equal([]string{"once", "headscale", "once", "false", "false", "1"}))
	})
})

var _ = Describe("When a user is deleted, the keys", func() {
	It("of that user and, with v0.28.0, of all others are there again within half a minute", func(ctx SpecContext) {
		o := newOperators(ctx)
		together(newTailnets(ctx, o, versions), func(t *tailnet) {
			own, other := t.newObject(ctx, "own"), t.newObject(ctx, "other")
			ownBefore, _ := own.heals(ctx)
			otherBefore, _ := other.heals(ctx)
			user, err := own.user(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(t.direct.DeleteUser(ctx, user)).To(Succeed())
			_, took := own.healsFrom(ctx, ownBefore)
			seen("the user was deleted, and is made again", t.version, took)
			if t.version == "v0.28.0" {
				_, took = other.healsFrom(ctx, otherBefore)
				seen("all keys are lost with the user, and made again", t.version, took)
			}
			other.heals(ctx)
			own.opens(ctx)
			other.opens(ctx)
		})
	})
})

// expireByHand expires the key past the operator.
func (k *object) expireByHand(ctx context.Context) {
	GinkgoHelper()
	valid, err := k.valid(ctx)
	Expect(err).NotTo(HaveOccurred())
	Expect(valid).To(HaveLen(1))
	Expect(k.t.direct.ExpirePreAuthKey(ctx, valid[0])).To(Succeed())
}

// deleteByHand deletes the key past the operator, or expires it, where a release cannot.
func (k *object) deleteByHand(ctx context.Context) {
	GinkgoHelper()
	if k.t.version < "v0.28" {
		k.expireByHand(ctx)
		return
	}
	Expect(k.t.direct.DeletePreAuthKey(ctx, k.resource(ctx).Status.KeyID)).To(Succeed())
}

// reason is that of Ready.
func (k *object) reason(ctx context.Context) string {
	GinkgoHelper()
	if ready := meta.FindStatusCondition(k.resource(ctx).Status.Conditions, v1beta1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}
