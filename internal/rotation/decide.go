package rotation

import (
	"fmt"
	"slices"
	"time"
)

const (
	// CheckInterval is the longest time between two checks of the stored credential.
	CheckInterval = time.Hour
	// PendingTimeout is how long a requested credential is searched for in the backend's list.
	// Headscale completes a create even if the caller has disconnected, so the credential may
	// appear in a later list.
	PendingTimeout = 2 * time.Minute
	// PendingInterval is the time between two lists in which it is searched for.
	PendingInterval = 10 * time.Second
	// maxClockSkew is how far the backend's clock and ours may be apart.
	maxClockSkew = 10 * time.Minute
)

// View is the complete input of a decision.
type View[F any] struct {
	// Now is the time of the decision.
	Now time.Time
	// Record is what the Secret says; nil if there is no Secret.
	Record *Record
	// Credentials is the backend's list.
	Credentials []Credential[F]
	// Unsaved is a credential that was created by this process and is not in the Secret yet.
	Unsaved *Created
	// Expired are the IDs of the credentials that this process has expired in the backend.
	Expired map[string]bool
	// Stuck are the IDs of the credentials that the backend failed to expire, and when to retry.
	// They must not prevent the creation of a credential that is needed.
	Stuck map[string]time.Time
	// Tag marks our credentials in the list.
	Tag Tag
	// Settings say how long credentials live.
	Settings Settings
	// Rules are the settings that differ between kinds of credentials.
	Rules Rules[F]
}

// Action is what is to be done now.
type Action int

// The actions. Each but None and Blocked is followed by another decision.
const (
	// None: the stored credential is good.
	None Action = iota
	// Blocked: something is to be done, and a person must resolve a problem.
	Blocked
	// Revoke: credentials are to be expired, and their entries in the ledger to be dropped.
	Revoke
	// Save: a credential that was created is to be stored.
	Save
	// Create: a new credential is to be created and stored.
	Create
	// Repair: what the Secret says about the credential is to be corrected.
	Repair
)

// Decision is what is to be done, and why.
type Decision struct {
	Action Action
	// Reason is the reason, as one CamelCase word.
	Reason Reason
	// Message explains the decision in a sentence for people.
	Message string
	// Next is when to decide again if nothing happens before (None and Blocked).
	Next time.Time
	// Expire are the IDs of the credentials to expire (Revoke).
	Expire []string
	// Record is the record to write to the Secret (Revoke and Repair); nil if nothing has to be
	// written.
	Record *Record
	// Predecessors are the IDs of the credentials that a new one replaces and that the
	// backend may still accept (Create and Save).
	Predecessors []string
}

// AtRest reports whether nothing can be done now.
func (d Decision) AtRest() bool { return d.Action == None || d.Action == Blocked }

// Decide returns the next action. What an earlier run started is completed or reverted before
// anything new is started.
func Decide[F any](v View[F]) Decision {
	if v.Record != nil && !v.Record.Ours {
		return v.blocked(ReasonNotOurs, v.Rules.NotOurs)
	}
	if d, unfinished := v.finish(); unfinished {
		return d
	}
	if reason, message, violated := v.violation(); violated {
		return v.replace(reason, message)
	}
	if d, found := v.sweep(); found {
		return d
	}
	if d, needed := v.repair(); needed {
		return d
	}
	return Decision{Action: None, Reason: ReasonUpToDate, Next: v.next(), Message: v.nextChange()}
}

// nextChange says until when a credential is valid, and when it is replaced.
func (v View[F]) nextChange() string {
	key := v.Stored()
	if key == nil {
		return fmt.Sprintf("there is no %s, and none is to be created", v.Rules.Noun)
	}
	return fmt.Sprintf("the %s is valid until %s and will be replaced at %s", v.Rules.Noun, ShowTime(key.Expiration), ShowTime(v.Due()))
}

// finish continues what an earlier run started: credentials that are unsaved, pending or retiring.
func (v View[F]) finish() (Decision, bool) {
	if v.Unsaved != nil {
		return v.finishUnsaved(), true
	}
	if v.Record == nil {
		return Decision{}, false
	}
	remaining := *v.Record
	var expire []string
	remaining.Pending, expire = v.revokePending(expire)
	remaining.Retiring, expire = v.revokeRetiring(expire)
	if len(remaining.Pending) == len(v.Record.Pending) && len(remaining.Retiring) == len(v.Record.Retiring) {
		return Decision{}, false
	}
	return Decision{Action: Revoke, Reason: ReasonSettling, Message: fmt.Sprintf("a %s that is not to be used any more is expired", v.Rules.Noun),
		Expire: expire, Record: &remaining}, true
}

// finishUnsaved saves a credential that was created, or revokes it if the Secret that it
// was created for is not the same any more.
func (v View[F]) finishUnsaved() Decision {
	if v.Record != nil && slices.ContainsFunc(v.Record.Pending, func(p PendingEntry) bool { return p.Expiration.Equal(v.Unsaved.Expiration) }) {
		return Decision{Action: Save, Reason: ReasonUnsaved, Message: fmt.Sprintf("a %s that was created is not in the Secret yet", v.Rules.Noun),
			Predecessors: v.predecessors()}
	}
	return Decision{Action: Revoke, Reason: ReasonSettling, Message: fmt.Sprintf("a %s that was created for a Secret that is gone is expired", v.Rules.Noun),
		Expire: []string{v.Unsaved.ID}}
}

func (v View[F]) revokePending(expire []string) ([]PendingEntry, []string) {
	var kept []PendingEntry
	for _, entry := range v.Record.Pending {
		i := slices.IndexFunc(v.Credentials, func(k Credential[F]) bool {
			return k.Expiration.Equal(entry.Expiration) && v.tagged(k) && k.ID != v.storedID()
		})
		switch {
		case i >= 0 && v.stuck(v.Credentials[i].ID), i < 0 && v.mayAppear(entry):
			kept = append(kept, entry)
		case i >= 0:
			expire = append(expire, v.Credentials[i].ID)
		}
	}
	return kept, expire
}

// mayAppear reports whether a pending credential may still appear in the list. An entry from the
// future was written before a clock was corrected.
func (v View[F]) mayAppear(entry PendingEntry) bool {
	return v.Now.Before(entry.Written.Add(PendingTimeout)) && !entry.Written.After(v.Now.Add(maxClockSkew))
}

func (v View[F]) revokeRetiring(expire []string) ([]RetiringEntry, []string) {
	var kept []RetiringEntry
	for _, entry := range v.Record.Retiring {
		key := v.find(entry.ID)
		switch {
		case key == nil || v.refused(*key) || entry.ID == v.storedID() || !v.believes(*key):
		case v.stuck(entry.ID) || !v.retires(entry):
			kept = append(kept, entry)
		default:
			expire = append(expire, entry.ID)
		}
	}
	return kept, expire
}

// retires reports whether a replaced credential is to be expired now. A time further away than the
// delay allows was written before a clock was corrected, or with a longer delay.
func (v View[F]) retires(entry RetiringEntry) bool {
	return !v.Now.Before(entry.NotBefore) || entry.NotBefore.After(v.Now.Add(v.Settings.RevocationDelay+maxClockSkew))
}

// stuck reports whether it is too early to try again to expire a credential.
func (v View[F]) stuck(id string) bool { return v.Now.Before(v.Stuck[id]) }

// replace decides how to get a new credential.
func (v View[F]) replace(reason Reason, message string) Decision {
	if v.Record != nil && v.Record.Immutable {
		return v.blocked(ReasonImmutable, fmt.Sprintf(
			"the Secret is immutable and its %s must be replaced (%s); delete the Secret, and a new one is created", v.Rules.Noun, message))
	}
	return Decision{Action: Create, Reason: reason, Message: message, Predecessors: v.predecessors()}
}

// predecessors are the IDs of the credentials that a new one replaces: the stored one, or, where
// the Secret is gone with all that it said and the rules want it, every valid one of ours. A
// credential that somebody else wrote into the Secret is not expired.
func (v View[F]) predecessors() []string {
	var ids []string
	for _, key := range v.Credentials {
		stored := v.Record != nil && key.ID == v.storedID()
		switch {
		case v.refused(key):
		case stored && v.keeps(key),
			v.Record == nil && v.Rules.LostRecord == RetireAfterDelay && v.owns(key):
			ids = append(ids, key.ID)
		}
	}
	return ids
}

// keeps reports whether we may expire the stored credential: it has our tag, or the ledger says
// that it was stored here.
func (v View[F]) keeps(key Credential[F]) bool {
	return v.believes(key) && (v.tagged(key) || v.Record.ID != "" || v.Record.Intact())
}

// believes reports whether we may expire a credential because the ledger says so.
func (v View[F]) believes(key Credential[F]) bool { return !v.Rules.OnlyTagged || v.tagged(key) }

// sweep finds credentials of ours that are in no ledger. It runs last, so that the only working
// credential is never expired before a better one exists.
func (v View[F]) sweep() (Decision, bool) {
	if v.Record == nil {
		return Decision{}, false
	}
	var expire []string
	for _, key := range v.Credentials {
		if v.owns(key) && !v.refused(key) && key.ID != v.storedID() && !v.Record.retires(key.ID) && !v.stuck(key.ID) {
			expire = append(expire, key.ID)
		}
	}
	return Decision{Action: Revoke, Reason: ReasonOrphaned, Message: fmt.Sprintf("a %s with this Secret's tag that no Secret holds is expired", v.Rules.Noun),
		Expire: expire}, len(expire) > 0
}

// repair corrects what the annotations say about a good credential.
func (v View[F]) repair() (Decision, bool) {
	key := v.Stored()
	if key == nil {
		return Decision{}, false
	}
	repaired := *v.Record
	repaired.ID = key.ID
	repaired.Expiration = key.Expiration
	if repaired.CreatedAt.IsZero() {
		repaired.CreatedAt = key.CreatedAt.Truncate(time.Second)
	}
	same := v.Record.Regular && repaired.ID == v.Record.ID && repaired.CreatedAt.Equal(v.Record.CreatedAt) &&
		repaired.Expiration.Equal(v.Record.Expiration)
	return Decision{Action: Repair, Reason: ReasonAnnotationsDiffer, Record: &repaired,
		Message: fmt.Sprintf("the Secret's annotations differ from what %s's list says about the %s", v.Rules.Issuer, v.Rules.Noun)}, !same
}

func (v View[F]) blocked(reason Reason, message string) Decision {
	return Decision{Action: Blocked, Reason: reason, Message: message, Next: v.next()}
}

// Stored returns the backend's entry for the credential in the Secret, nil if there is none.
func (v View[F]) Stored() *Credential[F] {
	if v.Record == nil {
		return nil
	}
	return v.find(v.storedID())
}

func (v View[F]) find(id string) *Credential[F] {
	i := slices.IndexFunc(v.Credentials, func(k Credential[F]) bool { return id != "" && k.ID == id })
	if i < 0 {
		return nil
	}
	return &v.Credentials[i]
}

// owns reports whether a credential is one of ours even if no ledger names it. The former tag
// may be another owner's, too, so it counts no longer than the record needs it: until it
// holds a credential with the present one.
func (v View[F]) owns(key Credential[F]) bool {
	switch {
	case !v.tagged(key):
		return false
	case v.Tag.Owns(key.Expiration):
		return true
	default:
		stored := v.Stored()
		return stored == nil || !v.Tag.Owns(stored.Expiration)
	}
}

// tagged reports whether a credential carries our tag, the present or the former one.
func (v View[F]) tagged(key Credential[F]) bool {
	return (v.Tag.Owns(key.Expiration) || v.Tag.OwnedBefore(key.Expiration)) && (v.Rules.Foreign == nil || !v.Rules.Foreign(key))
}

// refused reports whether the backend has stopped accepting a credential, by either clock. One that
// this process had expired is refused, even if by the backend's clock this happened later than now,
// unless a restored older database still lists it as valid.
func (v View[F]) refused(key Credential[F]) bool {
	over := !key.Expiration.IsZero() && !v.Now.Before(key.Expiration.Add(maxClockSkew))
	return over || v.Expired[key.ID] && !v.Tag.Owns(key.Expiration) && !v.Tag.OwnedBefore(key.Expiration)
}

// Due is when the stored credential is to be replaced, the zero time if there is none.
func (v View[F]) Due() time.Time {
	key := v.Stored()
	if key == nil {
		return time.Time{}
	}
	return key.Expiration.Add(-v.Settings.RotationBuffer)
}

// next is when to decide again if nothing happens before.
func (v View[F]) next() time.Time {
	next := v.Now.Add(CheckInterval)
	sooner := func(t time.Time) {
		if t.After(v.Now) && t.Before(next) {
			next = t
		}
	}
	sooner(v.Due())
	for _, until := range v.Stuck {
		sooner(until)
	}
	if v.Record == nil {
		return next
	}
	for _, entry := range v.Record.Retiring {
		sooner(entry.NotBefore)
	}
	if len(v.Record.Pending) > 0 {
		sooner(v.Now.Add(PendingInterval))
	}
	return next
}

// storedID is the ID of the credential that the Secret holds. It is read from the text if the
// digest matches or the record has no ID, and otherwise from the record.
func (v View[F]) storedID() string {
	if v.Rules.IDOf != nil {
		id, known := v.Rules.IDOf(v.Record.Text)
		if known && (v.Record.ID == "" || v.Record.Intact()) {
			return id
		}
	}
	return v.Record.ID
}
