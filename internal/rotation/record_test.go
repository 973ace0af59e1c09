package rotation

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("The ledger", func() {
	It("survives being written as text and read again", func() {
		pending := []PendingEntry{{noon.Add(time.Microsecond), noon}, {noon.Add(time.Hour), noon}}
		Expect(ParsePending(FormatPending(pending))).To(Equal(pending))
		retiring := []RetiringEntry{{"a-b_c", noon}, {"42", noon.Add(time.Nanosecond)}}
		Expect(ParseRetiring(FormatRetiring(retiring))).To(Equal(retiring))
	})

	It("is no text when it is empty, and leaves out what cannot be read", func() {
		Expect(FormatPending(nil) + FormatRetiring(nil) + FormatTime(time.Time{})).To(BeEmpty())
		Expect(ParsePending("soon@2026-01-01T12:00:00Z,,@")).To(BeEmpty())
		Expect(ParseRetiring("a@soon,@")).To(BeEmpty())
		Expect(ParseTime("soon")).To(BeZero())
	})
})
