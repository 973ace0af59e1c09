package instance

import (
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// waitQueue has the number of reconciles that use one Headscale, and the objects that wait for that.
type waitQueue struct {
	active  int
	waiting []client.Object
}

// Place is a slot of one reconcile among those that may wait for a Headscale at the same time.
type Place struct {
	instance *Instance
	kind     *Kind
}

// Enter is called before a reconcile of an object calls the Headscale. It fails with an error for
// which IsBusy is true if too many objects of the kind wait for that Headscale already, so there are
// always workers left for other Headscales. The caller must Leave the place.
func (i *Instance) Enter(kind *Kind, object client.Object) (*Place, error) {
	kind.lock.Lock()
	defer kind.lock.Unlock()
	at := kind.queueOf(i.name)
	if kind.free(i.in, i.name) <= 0 {
		if !slices.ContainsFunc(at.waiting, func(other client.Object) bool { return other.GetUID() == object.GetUID() }) {
			at.waiting = append(at.waiting, object)
		}
		return nil, errBusy
	}
	at.active++
	i.patient = i.in.isSlow(i.name) // It is the only one that waits.
	return &Place{instance: i, kind: kind}, nil
}

// Leave releases the place, and enqueues objects that have waited for one. It may be nil.
func (p *Place) Leave() {
	if p == nil {
		return
	}
	p.kind.Enqueue(p.instance.in.ctx, p.kind.released(p.instance.in, p.instance.name)...)
}

// released records that a place was released, and returns the objects that may have one now.
func (k *Kind) released(in *Instances, name client.ObjectKey) []client.Object {
	k.lock.Lock()
	defer k.lock.Unlock()
	k.queueOf(name).active--
	var next []client.Object
	for other, at := range k.queues {
		free := min(max(k.free(in, other)-len(next), 0), len(at.waiting))
		next = append(next, at.waiting[:free]...)
		at.waiting = slices.Clone(at.waiting[free:])
		if at.active == 0 && len(at.waiting) == 0 {
			delete(k.queues, other)
		}
	}
	return next
}

// queueOf is the queue of a Headscale. The caller holds lock.
func (k *Kind) queueOf(name client.ObjectKey) *waitQueue {
	if k.queues == nil {
		k.queues = map[client.ObjectKey]*waitQueue{}
	}
	if k.queues[name] == nil {
		k.queues[name] = &waitQueue{}
	}
	return k.queues[name]
}

// free is how many more reconciles may wait for a Headscale: up to half of the workers for one; one
// worker for one that is slow, and half of the workers for all slow ones. The caller holds lock.
func (k *Kind) free(in *Instances, name client.ObjectKey) int {
	half := max(k.Workers/2, 1)
	if !in.isSlow(name) {
		return half - k.queueOf(name).active
	}
	for other, at := range k.queues {
		if in.isSlow(other) {
			half -= at.active
		}
	}
	return min(half, 1-k.queueOf(name).active)
}

// isSlow reports whether a Headscale answers slowly.
func (in *Instances) isSlow(name client.ObjectKey) bool {
	in.lock.Lock()
	s := in.known[name]
	in.lock.Unlock()
	return s != nil && s.calls.isSlow(in.Now())
}
