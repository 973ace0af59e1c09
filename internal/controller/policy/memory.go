package policy

import "sigs.k8s.io/controller-runtime/pkg/client"

// memory is what an operator knows of a Headscale, which that does not tell.
type memory struct {
	// refused is what it refused last; nil: nothing.
	refused *refusal
	// sent is the digest of a policy of which it is not known what became of it; "": there is none. The status
	// of an object has it, too, but goes with the object.
	sent string
}

// recall returns what is known of a Headscale. An operator that has just started knows what the objects say.
func (r *Reconciler) recall(s *scope) memory {
	r.lock.Lock()
	defer r.lock.Unlock()
	known, had := r.known[s.key]
	if !had {
		known.sent = sending(s.policies)
		r.rememberLocked(s.key, known)
	}
	return known
}

// remember notes what is known of a Headscale.
func (r *Reconciler) remember(key client.ObjectKey, known memory) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.rememberLocked(key, known)
}

func (r *Reconciler) rememberLocked(key client.ObjectKey, known memory) {
	if r.known == nil {
		r.known = map[client.ObjectKey]memory{}
	}
	r.known[key] = known
}

// forget drops what is known of a Headscale.
func (r *Reconciler) forget(key client.ObjectKey) {
	r.lock.Lock()
	defer r.lock.Unlock()
	delete(r.known, key)
}
