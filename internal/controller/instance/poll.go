package instance

import (
	"context"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// pollTimeout ends a poll that hangs: it waits for other calls, and makes four calls, of which the
// one that lists pre-auth keys may take longer than the others.
const pollTimeout = (5 + headscale.MaxListTimeouts) * callTimeout

// pollSafely is poll that recovers from a panic: it polls again later.
func (in *Instances) pollSafely(s *shared) {
	ctx, cancel := context.WithTimeout(in.ctx, pollTimeout)
	defer cancel()
	if err := status.Recovered(ctx, v1beta1.Kind, func() error { in.poll(ctx, s); return nil }); err != nil {
		s.again(in, in.MaxAge)
	}
}

// poll reads a Headscale again while objects refer to it, and enqueues those that the difference
// concerns. The timer calls it.
func (in *Instances) poll(ctx context.Context, s *shared) {
	referring, err := in.referring(ctx, s.name)
	switch {
	case in.ctx.Err() != nil:
		return
	case err != nil:
		log.FromContext(ctx).Error(err, "Cannot list what refers to a Headscale", "headscale", s.name)
		s.again(in, in.MaxAge)
		return
	case referring.none():
		in.drop(ctx, s.name)
		return
	}
	hs := &v1beta1.Headscale{}
	if err := in.Client.Get(ctx, s.name, hs); err != nil || problemOf(s.name, hs) != nil {
		in.drop(ctx, s.name) // a watch reports when it can be called
		return
	}
	at, err := in.locate(ctx, hs)
	if err != nil {
		s.reset() // as above
		s.again(in, in.MaxAge)
		return
	}
	needed := referring.need()
	s.wantOnly(needed)
	if err := s.renew(ctx, in, hs, at, needed); err != nil && ctx.Err() != nil {
		s.again(in, in.MaxAge) // it is not known what is wrong
	}
}

// drop forgets a Headscale. What refers to it may have been reconciled meanwhile with the state that is forgotten, and
// not polled any more: it is enqueued, if the Headscale may be called.
func (in *Instances) drop(ctx context.Context, name client.ObjectKey) {
	in.forget(name)
	hs := &v1beta1.Headscale{}
	if err := in.Client.Get(ctx, name, hs); err != nil || problemOf(name, hs) != nil {
		return
	}
	for _, kind := range in.kinds {
		in.enqueueReferring(kind, name, func(client.Object) bool { return true })
	}
}

// again arms the timer.
func (s *shared) again(in *Instances, after time.Duration) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.arm(in, after)
}

// referring are the objects of each kind that refer to a Headscale.
type referring []struct {
	kind    *Kind
	objects []client.Object
}

// referring lists the objects that refer to a Headscale.
func (in *Instances) referring(ctx context.Context, name client.ObjectKey) (referring, error) {
	all := make(referring, len(in.kinds))
	for i, kind := range in.kinds {
		objects, err := kind.Objects(ctx, name)
		if err != nil {
			return nil, err
		}
		all[i].kind, all[i].objects = kind, objects
	}
	return all, nil
}

// none reports whether there are no objects.
func (r referring) none() bool {
	for i := range r {
		if len(r[i].objects) > 0 {
			return false
		}
	}
	return true
}

// need is what the objects need besides users.
func (r referring) need() need {
	var all need
	for i := range r {
		all.keys = all.keys || r[i].kind.NeedsKeys && len(r[i].objects) > 0
		all.policy = all.policy || r[i].kind.NeedsPolicy && len(r[i].objects) > 0
		for _, object := range r[i].objects {
			all.nodes = all.nodes || r[i].kind.NeedsNodes(object)
		}
	}
	return all
}

// change is how what was read of a Headscale differs from what was read before.
type change struct {
	// before and after are the snapshots; nil: there was none. The operator's own writes are added to after.
	before, after *Snapshot
	// failedBefore and failedAfter are why there was none; nil: there was one, or it was not read yet.
	failedBefore, failedAfter error
	// uncertain is whether objects may have reported a problem of a call since then.
	uncertain bool
}

// isForAll reports whether the change concerns all objects: the Headscale can no longer be called, or
// for another reason than before, or can be called again. The first reconcile gets the result itself.
func (c *change) isForAll() bool {
	if c.before == nil && c.failedBefore == nil {
		return c.uncertain
	}
	was, is := status.Classify(c.failedBefore), status.Classify(c.failedAfter)
	return c.uncertain || (was == nil) != (is == nil) || was != nil && was.Reason != is.Reason
}

// enqueueChanged enqueues the objects that a change concerns: those that differ between the snapshots, or all if
// the Headscale became readable or unreadable. They are listed after it: one that has changed
// while the Headscale was read may have been reconciled meanwhile, with the snapshot from before.
func (in *Instances) enqueueChanged(name client.ObjectKey, c *change) {
	isForAll := c.isForAll()
	if !isForAll && (c.before == nil || c.after == nil) {
		return
	}
	for _, kind := range in.kinds {
		in.enqueueReferring(kind, name, func(object client.Object) bool { return isForAll || kind.Differs(object, c.before, c.after) })
	}
}

// enqueueConcerned enqueues the objects that changes of the operator itself concern: the snapshot
// already has these, so the next one does not differ.
func (in *Instances) enqueueConcerned(name client.ObjectKey, changes Changes) {
	for _, kind := range in.kinds {
		if kind.Concerns != nil {
			in.enqueueReferring(kind, name, func(object client.Object) bool { return kind.Concerns(object, changes) })
		}
	}
}

// enqueueReferring enqueues those objects of a kind that refer to a Headscale and are concerned. So is one with which
// the question panics: others are not to suffer from it.
func (in *Instances) enqueueReferring(kind *Kind, name client.ObjectKey, concerned func(client.Object) bool) {
	objects, err := kind.Objects(in.ctx, name)
	if err != nil {
		log.FromContext(in.ctx).Error(err, "Cannot list what refers to a Headscale", "headscale", name)
		return
	}
	kind.Enqueue(in.ctx, slices.DeleteFunc(objects, func(object client.Object) bool {
		isConcerned := true
		_ = status.Recovered(in.ctx, v1beta1.Kind, func() error { isConcerned = concerned(object); return nil })
		return !isConcerned
	})...)
}
