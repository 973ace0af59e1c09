package rotation

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("A tag", func() {
	It("is the same for a Secret always and differs between Secrets", func() {
		seen := map[Tag]string{}
		for _, namespace := range []string{"a", "b", "default", "headscale"} {
			for _, name := range []string{"headscale-api-key", "test", "a"} {
				tag := NewTag(namespace + "/" + name)
				Expect(tag).To(Equal(NewTag(namespace + "/" + name)))
				Expect(seen).NotTo(HaveKey(tag))
				seen[tag] = namespace + name
				Expect(tag.fraction%time.Millisecond).NotTo(BeZero(), "others' expirations are often whole milliseconds")
				Expect(tag.fraction%time.Microsecond).To(BeZero(), "Postgres keeps no more than microseconds")
			}
		}
	})

	It("owns no key that never expires", func() { Expect(Tag{}.Owns(time.Time{})).To(BeFalse()) })
})
