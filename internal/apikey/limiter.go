package apikey

import "time"

const (
	// minBackoff and maxBackoff bound the time between two attempts to make a key
	// when one follows the other without a quiet time in between.
	minBackoff = time.Second
	maxBackoff = time.Minute
	// maxRetry bounds the time between two attempts at anything else, so that
	// recovery is seen within seconds.
	maxRetry = 10 * time.Second
)

// backoff is a delay that doubles, with jitter, up to a bound.
type backoff struct {
	delay, most time.Duration
	// jitter returns a number in [0, 1).
	jitter func() float64
}

// grow returns the next delay: 80 to 100 % of what it doubled to.
func (b *backoff) grow() time.Duration {
	b.delay = min(max(2*b.delay, minBackoff), b.most)
	return time.Duration(float64(b.delay) * (0.8 + 0.2*b.jitter()))
}

func (b *backoff) reset() { b.delay = 0 }

// mintLimiter bounds how many keys are made while something keeps going wrong: at
// most seven in the first minute and a half, then one a minute.
type mintLimiter struct {
	backoff
	notBefore time.Time
}

// wait is how long no key may be asked for. A time further away than the longest
// delay is one of a clock that was put right since.
func (l *mintLimiter) wait(now time.Time) time.Duration {
	if left := l.notBefore.Sub(now); left > 0 && left <= maxBackoff {
		return left
	}
	return 0
}

// spend notes that a key is asked for.
func (l *mintLimiter) spend(now time.Time) { l.notBefore = now.Add(l.grow()) }

// forgive notes that the key was wanted and is in place, so that the next one is
// free again after the shortest delay.
func (l *mintLimiter) forgive(now time.Time) {
	l.reset()
	l.notBefore = now.Add(minBackoff)
}

// rest notes that all is well, which ends the doubling when it lasts.
func (l *mintLimiter) rest(now time.Time) {
	if now.After(l.notBefore.Add(l.delay)) {
		l.reset()
	}
}
