package instance

import (
	"context"
	"errors"
	"sync"
	"time"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

const (
	// slowAfter is how long calls may take until their Headscale counts as slow. The slowest call of
	// one that is not, setting a policy, takes some 600 ms.
	slowAfter = time.Second
	// quickCalls is how many calls in a row must be quick until a slow Headscale no longer counts
	// as slow.
	quickCalls = 3
	// busyRetry is how long until an object is reconciled again for which a slow Headscale had no
	// time, unless it is enqueued before.
	busyRetry = 10 * time.Second
)

// errBusy says that other reconciles already wait for a slow Headscale, and that nothing was done.
var errBusy = status.Later(busyRetry, &Problem{Because: v1beta1.ReasonEndpointUnreachable, Message: "Headscale answers slowly, and other requests already wait for it"})

// IsBusy reports whether an error says that other reconciles already wait for a slow Headscale:
// nothing was done, and nothing is to be reported. The object is reconciled again when it is its turn.
func IsBusy(err error) bool { return errors.Is(err, errBusy) }

// callLock serializes the calls to one Headscale. It can be acquired with a context, and knows
// whether calls are slow.
type callLock struct {
	taken chan struct{}

	lock sync.Mutex
	// since is when it was acquired; zero: it is free.
	since time.Time
	// slow is how many quick calls in a row are needed until calls no longer count as slow; 0: they are
	// quick.
	slow int
}

func newCallLock() *callLock { return &callLock{taken: make(chan struct{}, 1)} }

// wait acquires the lock as soon as it is free. It fails only with the error of the context.
func (l *callLock) wait(ctx context.Context, now func() time.Time) error {
	select {
	case l.taken <- struct{}{}:
		l.setTaken(now())
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tryWait is wait that also fails with errBusy once the lock was held for longer than slowAfter.
func (l *callLock) tryWait(ctx context.Context, now func() time.Time) error {
	for {
		remaining := l.remaining(now())
		if remaining <= 0 {
			return errBusy
		}
		limited, cancel := context.WithTimeout(ctx, remaining)
		err := l.wait(limited, now)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// setTaken records that the lock was acquired.
func (l *callLock) setTaken(now time.Time) {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.since = now
}

// release releases the lock.
func (l *callLock) release(now time.Time) {
	l.lock.Lock()
	switch {
	case now.Sub(l.since) > slowAfter:
		l.slow = quickCalls
	case l.slow > 0:
		l.slow--
	}
	l.since = time.Time{}
	l.lock.Unlock()
	<-l.taken
}

// remaining is how long the lock may still be held until that is slow.
func (l *callLock) remaining(now time.Time) time.Duration {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.since.IsZero() {
		return slowAfter
	}
	return l.since.Add(slowAfter).Sub(now)
}

// isSlow reports whether calls take long.
func (l *callLock) isSlow(now time.Time) bool {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.slow > 0 || !l.since.IsZero() && now.Sub(l.since) > slowAfter
}
