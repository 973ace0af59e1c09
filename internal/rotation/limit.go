package rotation

import (
	"math"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// MinDelay is the shortest time between two attempts at anything.
	MinDelay = time.Second
	// MaxCreateDelay bounds the time between two attempts to create a credential when one
	// follows the other without a quiet time in between.
	MaxCreateDelay = time.Minute
	// MaxRetryDelay bounds the time between two attempts at anything else, so that
	// recovery is noticed within seconds.
	MaxRetryDelay = 10 * time.Second
)

// jitter is the random part of a delay.
const jitter = 0.2

// NewBackoff returns a delay that doubles from MinDelay up to a bound, minus a random part of up to
// a fifth. To reset it, replace it by a new one.
func NewBackoff(longest time.Duration) wait.Backoff {
	return backoff(MinDelay, longest, jitter)
}

// backoff returns a delay that doubles and that is never longer than the bound. A
// wait.Backoff adds its jitter to the delay and to the cap, so these are less by as much.
func backoff(shortest, longest time.Duration, jitter float64) wait.Backoff {
	without := func(delay time.Duration) time.Duration { return time.Duration(float64(delay) * (1 - jitter)) }
	return wait.Backoff{
		Duration: without(shortest), Cap: without(longest), Factor: 2, Jitter: jitter / (1 - jitter), Steps: math.MaxInt32,
	}
}

// limiter bounds how many credentials are created while something keeps failing: at most seven in
// the first minute and a half, then one a minute.
type limiter struct {
	initial, next wait.Backoff
	// delay is the last one.
	delay     time.Duration
	notBefore time.Time
}

func newLimiter(backoff wait.Backoff) limiter { return limiter{initial: backoff, next: backoff} }

// remaining is how long no credential may be created. A time further away than the longest
// delay is one of a clock that was corrected since.
func (l *limiter) remaining(now time.Time) time.Duration {
	if left := l.notBefore.Sub(now); left > 0 && left <= MaxCreateDelay {
		return left
	}
	return 0
}

// reserve notes that a credential is about to be created.
func (l *limiter) reserve(now time.Time) {
	l.delay = l.next.Step()
	l.notBefore = now.Add(l.delay)
}

// forget notes that the last credential was created because it was expected and is valid, so
// that the next one may follow after the shortest delay.
func (l *limiter) forget(now time.Time) {
	l.reset()
	l.notBefore = now.Add(MinDelay)
}

// idle notes that no credential is needed, which resets the delay once it lasts.
func (l *limiter) idle(now time.Time) {
	if now.After(l.notBefore.Add(l.delay)) {
		l.reset()
	}
}

func (l *limiter) reset() { l.next, l.delay = l.initial, 0 }
