package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Step is one of the steps of a rotation, named for logs and for tests that cut it off.
type Step string

// The steps of a rotation, in their order.
const (
	// StepIntend records in the Secret which credential will be requested.
	StepIntend Step = "intend"
	// StepCreate has the backend create the credential.
	StepCreate Step = "create"
	// StepStore writes the credential into the Secret, and which one it replaces.
	StepStore Step = "store"
	// StepExpire has the backend refuse a credential.
	StepExpire Step = "expire"
	// StepForget drops the entries of what is finished from the Secret.
	StepForget Step = "forget"
)

// StepRepair is no step of a rotation: it corrects what the Secret says of a good
// credential.
const StepRepair Step = "repair"

// execute does what was decided.
func (r *Rotator[F]) execute(ctx context.Context, view View[F], d Decision) error {
	switch d.Action {
	case Create:
		return r.replace(ctx, view, d)
	case Save:
		return r.store(ctx, d)
	case Revoke:
		return r.revoke(ctx, d)
	case Repair:
		return r.repair(ctx, d)
	default:
		return nil
	}
}

// replace creates a new credential and stores it.
func (r *Rotator[F]) replace(ctx context.Context, view View[F], d Decision) error {
	if wait := r.State.creating.remaining(view.Now); wait > 0 {
		return &ThrottledError{Until: view.Now.Add(wait), Cause: d, Noun: r.Rules.Noun}
	}
	expiration := view.newExpiration()
	if err := r.intend(ctx, view, expiration); err != nil {
		return err
	}
	r.State.creating.reserve(r.now())
	if err := r.create(ctx, expiration); err != nil {
		return err
	}
	r.State.expected = r.Rules.expects(d.Reason)
	return r.store(ctx, d)
}

// newExpiration picks the expiration of a new credential: a unique one that marks it as ours.
func (v View[F]) newExpiration() time.Time {
	expiration := v.Tag.Expiration(v.Now.Add(v.Settings.Expiration))
	for v.taken(expiration) {
		expiration = expiration.Add(time.Second)
	}
	return expiration
}

func (v View[F]) taken(expiration time.Time) bool {
	listed := slices.ContainsFunc(v.Credentials, func(k Credential[F]) bool { return k.Expiration.Equal(expiration) })
	return listed || v.Record != nil &&
		slices.ContainsFunc(v.Record.Pending, func(p PendingEntry) bool { return p.Expiration.Equal(expiration) })
}

// intend notes the credential in the Secret before it exists. If that is refused, none
// has been created.
func (r *Rotator[F]) intend(ctx context.Context, view View[F], expiration time.Time) error {
	var record Record
	if view.Record != nil {
		record = *view.Record
	}
	if err := r.write(ctx, record.withPending(PendingEntry{Expiration: expiration, Written: view.Now})); err != nil {
		return fmt.Errorf("noting a new %s in the Secret: %w", r.Rules.Noun, err)
	}
	r.Observer.Reached(StepIntend)
	return nil
}

// create has the backend create the credential.
func (r *Rotator[F]) create(ctx context.Context, expiration time.Time) error {
	text, id, err := r.Backend.Create(ctx, expiration)
	r.Observer.Reached(StepCreate)
	if err != nil {
		return err
	}
	if id == "" {
		if id, err = r.listedID(ctx, expiration); err != nil {
			return err
		}
	}
	r.State.unsaved = &Created{Text: text, ID: id, Expiration: expiration, CreatedAt: r.now().Truncate(time.Second)}
	return nil
}

// listedID finds the ID of a credential when only its text is known.
func (r *Rotator[F]) listedID(ctx context.Context, expiration time.Time) (string, error) {
	credentials, err := r.Backend.List(ctx)
	if err != nil {
		return "", fmt.Errorf("looking for the new %s in %s's list: %w", r.Rules.Noun, r.Rules.Issuer, err)
	}
	for _, credential := range credentials {
		if credential.Expiration.Equal(expiration) {
			return credential.ID, nil
		}
	}
	return "", fmt.Errorf("the %s that %s created is not in its list, and nothing else tells its name", r.Rules.Noun, r.Rules.Issuer)
}

// store puts the credential into the Secret.
func (r *Rotator[F]) store(ctx context.Context, d Decision) error {
	created := *r.State.unsaved
	record := r.record.withCredential(created, d.Predecessors, r.now().Add(r.Settings.RevocationDelay))
	if err := r.write(ctx, record); err != nil {
		return fmt.Errorf("storing the new %s in the Secret: %w", r.Rules.Noun, err)
	}
	r.State.unsaved = nil
	r.Observer.Reached(StepStore)
	r.Observer.Did(Event{Step: StepStore, Reason: d.Reason, Message: d.Message,
		ID: created.ID, Expiration: created.Expiration, Replaces: d.Predecessors})
	return nil
}

// revoke expires credentials, and then drops the entries that said so. One that cannot be
// expired is deferred: the next decision leaves it, and its entry, alone for a while.
func (r *Rotator[F]) revoke(ctx context.Context, d Decision) error {
	r.dropUnsaved(d.Expire)
	var failed error
	for _, id := range d.Expire {
		failed = errors.Join(failed, r.expire(ctx, id, d))
	}
	r.Observer.Reached(StepExpire)
	if failed != nil {
		r.Observer.Failed(failed)
		return ctx.Err()
	}
	if d.Record == nil {
		return nil
	}
	if err := r.write(ctx, *d.Record); err != nil {
		return fmt.Errorf("noting in the Secret that a %s was expired: %w", r.Rules.Noun, err)
	}
	r.Observer.Reached(StepForget)
	return nil
}

// expire has the backend refuse a credential.
func (r *Rotator[F]) expire(ctx context.Context, id string, d Decision) error {
	if err := r.Backend.Expire(ctx, id); err != nil {
		r.State.stuck[id] = r.now().Add(r.State.expiring.Step())
		return err
	}
	r.State.expired[id] = true
	delete(r.State.stuck, id)
	r.State.expiring = NewBackoff(MaxRetryDelay)
	r.Observer.Did(Event{Step: StepExpire, Reason: d.Reason, Message: d.Message, ID: id})
	return nil
}

// dropUnsaved forgets a credential that is to be expired instead of stored. If that
// fails, it is found again by its tag.
func (r *Rotator[F]) dropUnsaved(expire []string) {
	if r.State.unsaved != nil && slices.Contains(expire, r.State.unsaved.ID) {
		r.State.unsaved = nil
	}
}

// repair corrects what the Secret says.
func (r *Rotator[F]) repair(ctx context.Context, d Decision) error {
	if err := r.write(ctx, *d.Record); err != nil {
		return err
	}
	r.Observer.Did(Event{Step: StepRepair, Reason: d.Reason, Message: d.Message})
	return nil
}

// write makes the Secret say what the record says.
func (r *Rotator[F]) write(ctx context.Context, record Record) error {
	written, err := r.Store.Write(ctx, record)
	if err != nil {
		return err
	}
	r.record = &written
	return nil
}
