package instance

import (
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// line is who is reconciled for one Headscale, and who waits for that.
type line struct {
	inside  int
	waiting []client.Object
}

// Place is that of one reconcile among those that may wait for a Headscale at the same time.
type Place struct {
	instance *Instance
	kind     *Kind
}

// Enter is called before a reconcile of an object asks the Headscale. It fails with an error that
// IsBusy knows where too many objects of the kind wait for that one already, so that there are
// always workers left for other Headscales. The place is to be left.
func (i *Instance) Enter(kind *Kind, object client.Object) (*Place, error) {
	kind.lock.Lock()
	defer kind.lock.Unlock()
	at := kind.lineOf(i.name)
	if kind.room(i.in, i.name) <= 0 {
		if !slices.ContainsFunc(at.waiting, func(other client.Object) bool { return other.GetUID() == object.GetUID() }) {
			at.waiting = append(at.waiting, object)
		}
		return nil, errBusy
	}
	at.inside++
	i.patient = i.in.isSlow(i.name) // It is the only one that waits.
	return &Place{instance: i, kind: kind}, nil
}

// Leave leaves the place, and has those reconciled that have waited for one. A nil one is none.
func (p *Place) Leave() {
	if p == nil {
		return
	}
	p.kind.Enqueue(p.instance.in.ctx, p.kind.left(p.instance.in, p.instance.name)...)
}

// left notes that a place was left, and returns who may have one now.
func (k *Kind) left(in *Instances, name client.ObjectKey) []client.Object {
	k.lock.Lock()
	defer k.lock.Unlock()
	k.lineOf(name).inside--
	var next []client.Object
	for other, at := range k.lines {
		room := min(max(k.room(in, other)-len(next), 0), len(at.waiting))
		next = append(next, at.waiting[:room]...)
		at.waiting = slices.Clone(at.waiting[room:])
		if at.inside == 0 && len(at.waiting) == 0 {
			delete(k.lines, other)
		}
	}
	return next
}

// lineOf is the line of a Headscale. The caller has lock.
func (k *Kind) lineOf(name client.ObjectKey) *line {
	if k.lines == nil {
		k.lines = map[client.ObjectKey]*line{}
	}
	if k.lines[name] == nil {
		k.lines[name] = &line{}
	}
	return k.lines[name]
}

// room is how many more reconciles may wait for a Headscale: half of the workers may for one; one
// worker may for one that is slow, and half of the workers for all of these. The caller has lock.
func (k *Kind) room(in *Instances, name client.ObjectKey) int {
	half := max(k.Workers/2, 1)
	if !in.isSlow(name) {
		return half - k.lineOf(name).inside
	}
	for other, at := range k.lines {
		if in.isSlow(other) {
			half -= at.inside
		}
	}
	return min(half, 1-k.lineOf(name).inside)
}

// isSlow reports whether a Headscale answers slowly.
func (in *Instances) isSlow(name client.ObjectKey) bool {
	in.lock.Lock()
	s := in.known[name]
	in.lock.Unlock()
	return s != nil && s.calls.isSlow(in.Now())
}
