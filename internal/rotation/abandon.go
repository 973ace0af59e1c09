package rotation

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Leftovers are the credentials that remain when their owner is being deleted: the IDs of those
// that the backend may still accept, and until when another one may appear in the list; zero if
// none may.
func (v View[F]) Leftovers() (ids []string, appearsUntil time.Time) {
	if v.Record != nil && !v.Record.Ours {
		v.Record = nil
	}
	for _, key := range v.Credentials {
		noted := v.Record != nil && (key.ID == v.storedID() && v.keeps(key) || v.Record.retires(key.ID) && v.believes(key))
		if (noted || v.tagged(key)) && !v.expired(key) {
			ids = append(ids, key.ID)
		}
	}
	if v.Record == nil {
		return ids, appearsUntil
	}
	for _, entry := range v.Record.Pending {
		listed := slices.ContainsFunc(v.Credentials, func(k Credential[F]) bool { return k.Expiration.Equal(entry.Expiration) })
		if until := entry.Written.Add(PendingTimeout); !listed && v.mayAppear(entry) && until.After(appearsUntil) {
			appearsUntil = until
		}
	}
	return ids, appearsUntil
}

// expired reports whether a credential has expired in the backend, or this process had it expired.
func (v View[F]) expired(key Credential[F]) bool {
	return v.refused(key) || !key.Expiration.IsZero() && !v.Tag.Owns(key.Expiration) && !v.Now.Before(key.Expiration)
}

// Abandon expires all leftovers, because their owner is being deleted. It returns the view that it
// has read, and until when another credential may appear. It does not write to the Store.
func (r *Rotator[F]) Abandon(ctx context.Context) (View[F], time.Time, error) {
	view, err := r.observe(ctx)
	if err != nil {
		return view, time.Time{}, &ObserveError{err}
	}
	ids, appearsUntil := view.Leftovers()
	decision := Decision{Action: Revoke, Reason: ReasonSettling, Message: "the owner of the " + r.Rules.Noun + " is being deleted"}
	var failed error
	for _, id := range ids {
		failed = errors.Join(failed, r.expire(ctx, id, decision))
	}
	r.Observer.Reached(StepExpire)
	r.State.unsaved = nil
	return view, appearsUntil, failed
}
