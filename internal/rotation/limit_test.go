package rotation

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

var _ = Describe("The limiter of new credentials", func() {
	It("doubles to a minute, and starts again after a quiet time", func() {
		limiter := newLimiter(backoff(MinDelay, MaxCreateDelay, 0))
		now := noon
		for _, seconds := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
			limiter.reserve(now)
			Expect(limiter.notBefore.Sub(now)).To(Equal(time.Duration(seconds) * time.Second))
			now = limiter.notBefore
			limiter.idle(now)
		}
		limiter.idle(now.Add(2 * time.Minute))
		limiter.reserve(now)
		Expect(limiter.notBefore.Sub(now)).To(Equal(time.Second))
	})

	It("waits no longer than the longest delay, whatever the clock does", func() {
		limiter := newLimiter(NewBackoff(MaxCreateDelay))
		limiter.reserve(noon)
		Expect(limiter.remaining(noon)).To(BeNumerically(">", 0))
		Expect(limiter.remaining(noon.Add(-time.Hour))).To(BeZero())
		Expect(limiter.remaining(noon.Add(time.Minute))).To(BeZero())
	})
})

var _ = Describe("A backoff", func() {
	It("is never longer than its bound, and less by a fifth at most", func() {
		for range 100 {
			backoff := NewBackoff(MaxRetryDelay)
			for _, seconds := range []int{1, 2, 4, 8, 10, 10, 10} {
				nominal := time.Duration(seconds) * time.Second
				Expect(backoff.Step()).To(And(BeNumerically(">=", nominal*8/10), BeNumerically("<=", nominal)))
			}
		}
	})
})
