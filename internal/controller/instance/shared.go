package instance

import (
	"context"
	"errors"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// firstRetry is how long after a failure a Headscale is polled again. It doubles with each
// further one, up to longestRetry.
const (
	firstRetry   = time.Second
	longestRetry = 30 * time.Second
)

// shared is the state that all objects that refer to one Headscale share.
type shared struct {
	name client.ObjectKey

	// calls serializes the calls to the Headscale.
	calls *callLock
	// api is the connection, and credentials are those it was made with; nil: none. Guarded by calls.
	api         API
	credentials credentials
	connectedTo target

	// lock is held for a moment, and never while calls is waited for.
	lock sync.Mutex
	// about is the target of snapshot and problem.
	about target
	// snapshot is the last one that was read, and readAt when; zero: it is not to be trusted.
	snapshot *Snapshot
	readAt   time.Time
	// problem is why the snapshot cannot be used; nil: it can, or it was not read yet.
	problem error
	// lastProblem is the problem of the last read, for which all objects were enqueued; nil: it had none.
	lastProblem error
	// uncertain is whether some objects may have reported a problem since the last read.
	uncertain bool
	retry     time.Duration
	timer     *time.Timer
	closed    bool
	// wanted is what each snapshot is to have, as far as it is known who needs it.
	wanted need
}

// want adds pre-auth keys or the policy to what snapshots have from now on.
func (s *shared) want(more need) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.wanted = s.wanted.and(more)
}

// wantOnly sets what snapshots have from now on.
func (s *shared) wantOnly(needed need) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.wanted = need{keys: needed.keys, policy: needed.policy}
}

// need returns what a snapshot is to have, with what is needed now.
func (s *shared) need(now need) need {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.wanted.and(now)
}

// snapshotOf returns the snapshot that there is, or else reads one. While it cannot be read, only
// the timer tries.
func (s *shared) snapshotOf(ctx context.Context, in *Instances, hs *v1beta1.Headscale, take func(context.Context, func() time.Time) error) (*Snapshot, error) {
	at, err := in.locate(ctx, hs)
	if err != nil {
		return nil, err
	}
	if snapshot, err := s.known(in, at); snapshot != nil || err != nil {
		return snapshot, err
	}
	if err := take(ctx, in.Now); err != nil {
		return nil, err
	}
	defer s.releaseCalls(in)
	if snapshot, err := s.known(in, at); snapshot != nil || err != nil {
		return snapshot, err
	}
	return s.reread(ctx, in, hs, at)
}

// known returns the snapshot, or why there is none; neither where it is to be read.
func (s *shared) known(in *Instances, at target) (*Snapshot, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	switch {
	case s.about != at:
		return nil, nil
	case s.problem != nil:
		return nil, s.problem
	case s.snapshot != nil && in.Now().Sub(s.readAt) < in.MaxAge:
		return s.snapshot, nil
	default:
		return nil, nil
	}
}

// user returns a user of the last snapshot.
func (s *shared) user(id uint64) (headscale.User, bool) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.snapshot == nil {
		return headscale.User{}, false
	}
	return s.snapshot.User(id)
}

// need is what a snapshot has besides users.
type need struct{ nodes, keys, policy bool }

// and returns what either needs.
func (n need) and(other need) need {
	return need{nodes: n.nodes || other.nodes, keys: n.keys || other.keys, policy: n.policy || other.policy}
}

// read reads a snapshot with what is needed.
func (n need) read(ctx context.Context, api API) (*Snapshot, error) {
	users, err := api.ListUsers(ctx)
	if err != nil {
		return nil, err
	}
	read := NewSnapshot(users...)
	for _, part := range []struct {
		needed bool
		read   func(context.Context, API) error
	}{{n.keys, read.readKeys}, {n.policy && !n.keys, read.lookForPolicy}, {n.nodes, read.readNodes}} {
		if !part.needed {
			continue
		}
		if err := part.read(ctx, api); err != nil {
			return nil, err
		}
	}
	read.takeChanges() // they are what was read
	return read, nil
}

// reread is refresh for a reconcile, which does not know who refers to the Headscale.
func (s *shared) reread(ctx context.Context, in *Instances, hs *v1beta1.Headscale, at target) (*Snapshot, error) {
	referring, err := in.referring(ctx, s.name)
	if err != nil {
		return nil, err
	}
	return s.refresh(ctx, in, hs, at, referring.need())
}

// refresh reads a new snapshot with what those need that refer to the Headscale, and
// enqueues those that the difference concerns, whichever reconcile it is read for: the old one is not
// compared again. The caller holds calls.
func (s *shared) refresh(ctx context.Context, in *Instances, hs *v1beta1.Headscale, at target, needed need) (*Snapshot, error) {
	var read *Snapshot
	needed = s.need(needed)
	err := s.call(ctx, in, hs, at, func(ctx context.Context, api API) error {
		var err error
		read, err = needed.read(ctx, api)
		return err
	})
	if err != nil {
		read = nil
	}
	if ctx.Err() != nil && err != nil {
		return nil, err // the caller was cancelled; this says nothing about the Headscale
	}
	changed := s.note(in, at, read, err)
	go in.enqueueChanged(s.name, changed) // In a goroutine, because a controller may not have started.
	return read, err
}

// note keeps what was read, or why nothing was, and returns how that differs from before.
func (s *shared) note(in *Instances, at target, read *Snapshot, err error) *change {
	s.lock.Lock()
	defer s.lock.Unlock()
	found := &change{before: s.snapshot, after: read, failedBefore: s.lastProblem, failedAfter: err, uncertain: s.uncertain}
	s.about, s.snapshot, s.readAt, s.problem, s.lastProblem, s.uncertain = at, read, in.Now(), err, err, false
	if err != nil {
		s.retry = min(max(2*s.retry, firstRetry), longestRetry)
		s.arm(in, s.retry)
		return found
	}
	s.retry = 0
	s.arm(in, in.MaxAge)
	return found
}

// renew reads a new snapshot whatever the old one is.
func (s *shared) renew(ctx context.Context, in *Instances, hs *v1beta1.Headscale, at target, needed need) error {
	if err := s.calls.wait(ctx, in.Now); err != nil {
		return err
	}
	defer s.releaseCalls(in)
	_, err := s.refresh(ctx, in, hs, at, needed)
	return err
}

// write is Instance.Write, with a function that acquires calls.
func (s *shared) write(ctx context.Context, in *Instances, hs *v1beta1.Headscale, take func(context.Context, func() time.Time) error,
	change func(context.Context, API, *Snapshot) error) error {
	at, err := in.locate(ctx, hs)
	if err != nil {
		return err
	}
	if err := take(ctx, in.Now); err != nil {
		return err
	}
	defer s.releaseCalls(in)
	snapshot, err := s.known(in, at)
	if snapshot == nil && err == nil {
		snapshot, err = s.reread(ctx, in, hs, at)
	}
	if err != nil {
		return err
	}
	defer func() { // also if the change panics
		if changes := snapshot.takeChanges(); changes.Policy || len(changes.Users) > 0 {
			go in.enqueueConcerned(s.name, changes) // as in refresh
		}
	}()
	err = s.call(ctx, in, hs, at, func(ctx context.Context, api API) error { return change(ctx, api, snapshot) })
	if err != nil {
		s.distrust(in, err)
	}
	return err
}

// distrust has the snapshot read again before it is used, after an error: it may be why, or
// something may have happened nevertheless. If Headscale could not be called, only the
// timer tries again.
func (s *shared) distrust(in *Instances, err error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.readAt = time.Time{}
	var problem *Problem
	if errors.As(err, &problem) && problem.common && problem.Waiting() {
		s.problem, s.retry, s.uncertain = err, firstRetry, true
		s.arm(in, s.retry)
	}
}

// call makes calls with the credentials that there are. Where they are refused, it reads them
// again, and tries once more where they have changed: nothing was sent, or nothing was taken.
func (s *shared) call(ctx context.Context, in *Instances, hs *v1beta1.Headscale, at target, do func(context.Context, API) error) error {
	if s.api == nil || s.connectedTo != at {
		if _, err := s.connect(ctx, in, hs, at); err != nil {
			return err
		}
	}
	defer s.disconnectIfClosed()
	err := do(ctx, s.api)
	if errors.Is(err, headscale.ErrUnauthorized) || errors.Is(err, headscale.ErrPinMismatch) {
		changed, readErr := s.connect(ctx, in, hs, at)
		switch {
		case readErr != nil:
			return readErr
		case changed:
			err = do(ctx, s.api)
		}
	}
	return explain(s.name.String(), at.address, err)
}

// connect reads the credentials and makes a connection with them. It reports whether they differ
// from those before.
func (s *shared) connect(ctx context.Context, in *Instances, hs *v1beta1.Headscale, at target) (bool, error) {
	read, err := in.readCredentials(ctx, hs, at.secret)
	if err != nil {
		return false, err
	}
	if s.api != nil && s.connectedTo == at && s.credentials == read {
		return false, nil
	}
	s.disconnect()
	s.api, s.credentials, s.connectedTo = in.Connect(at.address, read.pin, read.key), read, at
	return true, nil
}

// disconnect ends the connection and drops the key. The caller holds calls.
func (s *shared) disconnect() {
	if s.api != nil {
		_ = s.api.Close() // nothing can be done about an error
	}
	s.api, s.credentials, s.connectedTo = nil, credentials{}, target{}
}

// disconnectIfClosed is for a call that was running when the Headscale was forgotten.
func (s *shared) disconnectIfClosed() {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.closed {
		s.disconnect()
	}
}

// reset drops the problem, so that the next reconcile asks again.
func (s *shared) reset() {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.problem != nil {
		s.problem, s.retry = nil, 0
	}
}

// releaseCalls releases calls.
func (s *shared) releaseCalls(in *Instances) { s.calls.release(in.Now()) }

// close stops the timer and ends the connection.
func (s *shared) close(in *Instances) {
	s.lock.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.lock.Unlock()
	if s.calls.wait(context.WithoutCancel(in.ctx), in.Now) == nil {
		defer s.releaseCalls(in)
		s.disconnect()
	}
}

// arm has the Headscale polled again after a time. The caller holds lock.
func (s *shared) arm(in *Instances, after time.Duration) {
	switch {
	case s.closed || in.ctx.Err() != nil:
	case s.timer == nil:
		s.timer = time.AfterFunc(after, func() { in.pollSafely(s) })
	default:
		s.timer.Reset(after)
	}
}
