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

// lookTimeout ends a look that hangs: one that waits for others, and makes four calls, of which the one
// that lists pre-auth keys may take longer than the others.
const lookTimeout = (5 + headscale.MaxListTimeouts) * callTimeout

// lookSafely is look, of which no panic ends the operator: it looks again later.
func (in *Instances) lookSafely(s *shared) {
	ctx, cancel := context.WithTimeout(in.ctx, lookTimeout)
	defer cancel()
	if err := status.Recovered(ctx, v1beta1.Kind, func() error { in.look(ctx, s); return nil }); err != nil {
		s.again(in, in.MaxAge)
	}
}

// look reads a Headscale again while objects refer to it, and has those reconciled for which it
// makes a difference. It is what the timer does.
func (in *Instances) look(ctx context.Context, s *shared) {
	referring, err := in.referring(ctx, s.name)
	switch {
	case in.ctx.Err() != nil:
		return
	case err != nil:
		log.FromContext(ctx).Error(err, "Cannot list what refers to a Headscale", "headscale", s.name)
		s.again(in, in.MaxAge)
		return
	case referring.none():
		in.forget(s.name)
		return
	}
	hs := &v1beta1.Headscale{}
	if err := in.Client.Get(ctx, s.name, hs); err != nil || problemOf(s.name, hs) != nil {
		in.forget(s.name) // a watch reports when there is one to be asked
		return
	}
	at, err := in.locate(ctx, hs)
	if err != nil {
		s.reset() // as above
		return
	}
	s.wantOnly(referring.need())
	if err := s.renew(ctx, in, hs, at, referring); err != nil && ctx.Err() != nil {
		s.again(in, in.MaxAge) // it is not known what is wrong
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

// need is what the objects are about besides users.
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
	// before and after are the snapshots; nil: there was none.
	before, after *Snapshot
	// failedBefore and failedAfter are why there was none; nil: there was one, or nobody had looked.
	failedBefore, failedAfter error
	// uncertain is whether objects may have reported a problem that a call had in between.
	uncertain bool
}

// concerns returns the objects for which it makes a difference what was read, or that nothing could
// be read, or can be again.
func (c *change) concerns(all referring) referring {
	concerned, isForAll := make(referring, len(all)), c.isForAll()
	for i := range all {
		concerned[i].kind = all[i].kind
		for _, object := range all[i].objects {
			if isForAll || c.before != nil && c.after != nil && all[i].kind.Differs(object, c.before, c.after) {
				concerned[i].objects = append(concerned[i].objects, object)
			}
		}
	}
	return concerned
}

// isForAll reports whether it concerns all objects: the Headscale cannot be asked any more, or for
// another reason than before, or can be again. Whoever is first to ask learns the answer itself.
func (c *change) isForAll() bool {
	if c.before == nil && c.failedBefore == nil {
		return c.uncertain
	}
	was, is := status.Classify(c.failedBefore), status.Classify(c.failedAfter)
	return c.uncertain || (was == nil) != (is == nil) || was != nil && was.Reason != is.Reason
}

// tell has the objects reconciled.
func (r referring) tell(ctx context.Context) {
	for i := range r {
		r[i].kind.Enqueue(ctx, r[i].objects...)
	}
}

// tellOf has the objects reconciled that what was noted in a snapshot concerns: the next one does not
// differ by it.
func (in *Instances) tellOf(name client.ObjectKey, changes Changes) {
	for _, kind := range in.kinds {
		if kind.Concerns == nil {
			continue
		}
		objects, err := kind.Objects(in.ctx, name)
		if err != nil {
			log.FromContext(in.ctx).Error(err, "Cannot list what refers to a Headscale", "headscale", name)
			continue
		}
		kind.Enqueue(in.ctx, slices.DeleteFunc(objects, func(object client.Object) bool { return !kind.Concerns(object, changes) })...)
	}
}
