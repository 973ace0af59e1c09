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
	// quickTurns is how often in a row a slow Headscale has to answer quickly until it is slow no
	// longer.
	quickTurns = 3
	// busyRetry is how long until a reconcile is tried again that a slow Headscale had no time for, if
	// nothing has woken it before.
	busyRetry = 10 * time.Second
)

// errBusy says that others wait for a slow Headscale already, and that nothing was done.
var errBusy = status.Later(busyRetry, &Problem{Because: v1beta1.ReasonEndpointUnreachable, Message: "Headscale answers slowly, and others wait for it already"})

// IsBusy reports whether an error says that others wait for a slow Headscale already: nothing was
// done, and nothing is to be reported. The object is reconciled again when it is its turn.
func IsBusy(err error) bool { return errors.Is(err, errBusy) }

// turn is a lock that is waited for with a context, and that knows whether those who have it take
// long.
type turn struct {
	taken chan struct{}

	lock sync.Mutex
	// since is when it was taken; zero: it is free.
	since time.Time
	// slow is how often in a row it has to be given back quickly; 0: those who have it are quick.
	slow int
}

func newTurn() *turn { return &turn{taken: make(chan struct{}, 1)} }

// wait takes the turn as soon as it is free. It fails with the error of the context only.
func (t *turn) wait(ctx context.Context, now func() time.Time) error {
	select {
	case t.taken <- struct{}{}:
		t.took(now())
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// try is wait that fails with errBusy, too, once somebody has had the turn for longer than slowAfter.
func (t *turn) try(ctx context.Context, now func() time.Time) error {
	for {
		left := t.left(now())
		if left <= 0 {
			return errBusy
		}
		limited, cancel := context.WithTimeout(ctx, left)
		err := t.wait(limited, now)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// took notes that the turn was taken.
func (t *turn) took(now time.Time) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.since = now
}

// give gives the turn back.
func (t *turn) give(now time.Time) {
	t.lock.Lock()
	switch {
	case now.Sub(t.since) > slowAfter:
		t.slow = quickTurns
	case t.slow > 0:
		t.slow--
	}
	t.since = time.Time{}
	t.lock.Unlock()
	<-t.taken
}

// left is how long whoever has the turn may have it until that is slow.
func (t *turn) left(now time.Time) time.Duration {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.since.IsZero() {
		return slowAfter
	}
	return t.since.Add(slowAfter).Sub(now)
}

// isSlow reports whether those who have the turn take long.
func (t *turn) isSlow(now time.Time) bool {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.slow > 0 || !t.since.IsZero() && now.Sub(t.since) > slowAfter
}
