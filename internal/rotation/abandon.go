package rotation

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Leftovers are what is left of a credential whose owner is being deleted: the IDs of all that the
// backend may still accept, and until when one may appear that is not listed yet; zero: none may.
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

// expired reports whether the backend has expired a credential, or this process has had it do so.
func (v View[F]) expired(key Credential[F]) bool {
	return v.refused(key) || !key.Expiration.IsZero() && !v.Tag.Owns(key.Expiration) && !v.Now.Before(key.Expiration)
}

// Abandon has everything expired that is left of the credential, because its owner is being deleted, and
// returns what it has read, and until when one more may appear. The Store is not written to.
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
