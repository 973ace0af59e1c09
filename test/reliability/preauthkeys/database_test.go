package preauthkeys_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("When Headscale is on another database, an operator", func() {
	eachRelease("makes a key for it, and leaves none of before", func(ctx context.Context, releases []string) {
		o := newOperators(ctx)
		together(newTailnets(ctx, o, releases), func(t *tailnet) {
			k := t.newObject(ctx, "web")
			first, _ := k.heals(ctx)
			t.backup(ctx)
			same, _ := k.heals(ctx)
			Expect(same).To(Equal(first), "Headscale was only started again")
			k.request(ctx, "another")
			second, _ := k.healsFrom(ctx, first)

			By("going back to the database in which the first key is valid, and the second unknown")
			t.restore(ctx)
			third, took := k.healsFrom(ctx, second)
			Expect(third).NotTo(Equal(first))
			seen("an older database", t.version, took)
			k.opens(ctx)
			fourth, _ := k.healsFrom(ctx, third)

			By("beginning with an empty database, in which there is no user either")
			t.empty(ctx)
			_, took = k.healsFrom(ctx, fourth)
			seen("an empty database", t.version, took)
			k.opens(ctx)
		})
	})
})
