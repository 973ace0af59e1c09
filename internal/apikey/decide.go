package apikey

import (
	"fmt"
	"slices"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
)

const (
	// CheckInterval is the longest time between two checks of the stored key.
	CheckInterval = time.Hour
	// PendingTimeout is how long a key that Headscale was asked for is looked for.
	// Headscale finishes a create even when the caller is gone, so the key may
	// appear after a look that did not find it.
	PendingTimeout = 2 * time.Minute
	// pendingInterval is the time between two looks for such a key.
	pendingInterval = 10 * time.Second
	// maxClockSkew is how far Headscale's clock and ours may be apart.
	maxClockSkew = 10 * time.Minute
)

// View is all that a decision depends on.
type View struct {
	// Now is the time of the decision.
	Now time.Time
	// Record is what the Secret says; nil if there is no Secret.
	Record *Record
	// Regular is whether the Secret's annotations are as we would write them.
	Regular bool
	// Keys is Headscale's list.
	Keys []headscale.APIKey
	// Unsaved is a key that was made by this process and is not in the Secret yet.
	Unsaved *Made
	// Expired are the keys, by prefix, that this process has had Headscale expire.
	Expired map[string]bool
	// Stuck are the keys, by prefix, that Headscale failed to expire, and when to try
	// again. They must not keep a key that is needed from being made.
	Stuck map[string]time.Time
	// Tag marks our keys in the list.
	Tag Tag
	// Settings say how long keys live.
	Settings Settings
}

// Made is a key that Headscale has just made for us.
type Made struct {
	Key        headscale.Key
	Prefix     string
	Expiration time.Time
	CreatedAt  time.Time
}

// Action is what is to be done now.
type Action int

// The actions. Each but None and Blocked is followed by another decision.
const (
	// None: the stored key is good.
	None Action = iota
	// Blocked: something is to be done, and a person must clear the way.
	Blocked
	// Settle: keys are to be expired, and their marks to be dropped.
	Settle
	// Save: a key that was made is to be stored.
	Save
	// Mint: a new key is to be made and stored.
	Mint
	// Repair: the annotations are to be written anew.
	Repair
)

// Decision is what is to be done, and why.
type Decision struct {
	Action Action
	// Reason is the why in one CamelCase word.
	Reason Reason
	// Message is the why in a sentence for people.
	Message string
	// Next is when to look again if nothing happens before (None and Blocked).
	Next time.Time
	// Expire are the prefixes of the keys that Headscale is to refuse (Settle).
	Expire []string
	// Record is what the Secret is to say afterwards (Settle and Repair); nil if
	// nothing is to be written.
	Record *Record
	// Predecessors are the prefixes of the keys that a new one replaces and that
	// Headscale may still honour (Mint and Save).
	Predecessors []string
}

// Decide says what the next thing to do is. What an earlier run began is finished
// or undone before anything new is begun.
func Decide(v View) Decision {
	if v.Record != nil && !v.Record.Ours {
		return v.blocked(ReasonNotOurs, "the Secret exists without the labels of an API key Secret, so it belongs to someone else and is left alone; delete or rename it, or choose another secret name")
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
	return Decision{Action: None, Reason: ReasonUpToDate, Next: v.next(),
		Message: fmt.Sprintf("the key is valid until %s and will be replaced at %s", formatTime(v.stored().Expiration), formatTime(v.due()))}
}

// finish takes up what was begun: a key not yet saved, keys on their way, keys to retire.
func (v View) finish() (Decision, bool) {
	if v.Unsaved != nil {
		return v.finishUnsaved(), true
	}
	if v.Record == nil {
		return Decision{}, false
	}
	settled := *v.Record
	var expire []string
	settled.Pending, expire = v.settlePending(expire)
	settled.Retiring, expire = v.settleRetiring(expire)
	if len(settled.Pending) == len(v.Record.Pending) && len(settled.Retiring) == len(v.Record.Retiring) {
		return Decision{}, false
	}
	return Decision{Action: Settle, Reason: ReasonSettling, Message: "a key that is not to be used any more is expired",
		Expire: expire, Record: &settled}, true
}

// finishUnsaved saves a key that was made, or undoes it if the Secret that it was
// made for is not the same any more.
func (v View) finishUnsaved() Decision {
	if v.Record != nil && slices.ContainsFunc(v.Record.Pending, func(p PendingKey) bool { return p.Expiration.Equal(v.Unsaved.Expiration) }) {
		return Decision{Action: Save, Reason: ReasonUnsaved, Message: "a key that was made is not in the Secret yet",
			Predecessors: v.predecessors()}
	}
	return Decision{Action: Settle, Reason: ReasonSettling, Message: "a key that was made for a Secret that is gone is expired",
		Expire: []string{v.Unsaved.Prefix}}
}

func (v View) settlePending(expire []string) ([]PendingKey, []string) {
	var kept []PendingKey
	for _, mark := range v.Record.Pending {
		i := slices.IndexFunc(v.Keys, func(k headscale.APIKey) bool {
			return k.Expiration.Equal(mark.Expiration) && v.Tag.Owns(k.Expiration) && k.Prefix != v.Record.storedPrefix()
		})
		switch {
		case i >= 0 && v.stuck(v.Keys[i].Prefix), i < 0 && v.mayAppear(mark):
			kept = append(kept, mark)
		case i >= 0:
			expire = append(expire, v.Keys[i].Prefix)
		}
	}
	return kept, expire
}

// mayAppear reports whether the key of a mark may still appear in the list. A mark
// from the future is one of a clock that was put right since.
func (v View) mayAppear(mark PendingKey) bool {
	return v.Now.Before(mark.Written.Add(PendingTimeout)) && !mark.Written.After(v.Now.Add(maxClockSkew))
}

func (v View) settleRetiring(expire []string) ([]RetiringKey, []string) {
	var kept []RetiringKey
	for _, mark := range v.Record.Retiring {
		key := v.find(mark.Prefix)
		switch {
		case key == nil || v.refused(*key) || mark.Prefix == v.Record.storedPrefix():
		case v.stuck(mark.Prefix) || !v.retires(mark):
			kept = append(kept, mark)
		default:
			expire = append(expire, mark.Prefix)
		}
	}
	return kept, expire
}

// retires reports whether a replaced key is to be expired now. A time further away
// than the delay allows is one of a clock that was put right since, or of a longer
// delay.
func (v View) retires(mark RetiringKey) bool {
	return !v.Now.Before(mark.NotBefore) || mark.NotBefore.After(v.Now.Add(v.Settings.RevocationDelay+maxClockSkew))
}

// stuck reports whether it is too early to try again to expire a key.
func (v View) stuck(prefix string) bool { return v.Now.Before(v.Stuck[prefix]) }

// replace decides for a new key.
func (v View) replace(reason Reason, message string) Decision {
	if v.Record != nil && v.Record.Immutable {
		return v.blocked(ReasonImmutable, "the Secret is immutable and its key must be replaced ("+message+"); delete the Secret, and a new one is made")
	}
	return Decision{Action: Mint, Reason: reason, Message: message, Predecessors: v.predecessors()}
}

// predecessors are the prefixes of the keys that a new key replaces: the stored one,
// or, where the Secret is gone with all that it said, every live key of ours. What
// somebody else put into the Secret is not ours to expire.
func (v View) predecessors() []string {
	var prefixes []string
	for _, key := range v.Keys {
		stored := v.Record != nil && key.Prefix == v.Record.storedPrefix()
		switch {
		case v.refused(key):
		case stored && (v.Tag.Owns(key.Expiration) || v.Record.Prefix != "" || v.Record.intact()),
			v.Record == nil && v.Tag.Owns(key.Expiration):
			prefixes = append(prefixes, key.Prefix)
		}
	}
	return prefixes
}

// sweep finds keys of ours that no ledger knows of. It comes last, so that the
// only key that works is never expired for want of a better one.
func (v View) sweep() (Decision, bool) {
	var expire []string
	for _, key := range v.Keys {
		retiring := slices.ContainsFunc(v.Record.Retiring, func(r RetiringKey) bool { return r.Prefix == key.Prefix })
		if v.Tag.Owns(key.Expiration) && !v.refused(key) && key.Prefix != v.Record.storedPrefix() && !retiring && !v.stuck(key.Prefix) {
			expire = append(expire, key.Prefix)
		}
	}
	return Decision{Action: Settle, Reason: ReasonOrphaned, Message: "a key of ours that is in no Secret is expired",
		Expire: expire}, len(expire) > 0
}

// repair puts right what the annotations say about a good key.
func (v View) repair() (Decision, bool) {
	key, repaired := v.stored(), *v.Record
	repaired.Prefix = key.Prefix
	repaired.Expiration = key.Expiration
	if repaired.CreatedAt.IsZero() {
		repaired.CreatedAt = key.CreatedAt.Truncate(time.Second)
	}
	same := v.Regular && repaired.Prefix == v.Record.Prefix && repaired.CreatedAt.Equal(v.Record.CreatedAt) &&
		repaired.Expiration.Equal(v.Record.Expiration)
	return Decision{Action: Repair, Reason: ReasonAnnotationsDiffer, Record: &repaired,
		Message: "the Secret's annotations do not say what Headscale's list says of the key"}, !same
}

func (v View) blocked(reason Reason, message string) Decision {
	return Decision{Action: Blocked, Reason: reason, Message: message, Next: v.next()}
}

// stored returns Headscale's entry for the key in the Secret, nil if there is none.
func (v View) stored() *headscale.APIKey {
	if v.Record == nil {
		return nil
	}
	return v.find(v.Record.storedPrefix())
}

func (v View) find(prefix string) *headscale.APIKey {
	i := slices.IndexFunc(v.Keys, func(k headscale.APIKey) bool { return prefix != "" && k.Prefix == prefix })
	if i < 0 {
		return nil
	}
	return &v.Keys[i]
}

// refused reports whether Headscale does not honour a key any more, by whichever
// clock. A key that this process had expired is refused, even if Headscale's clock
// says that this was later than now, unless it came back as it was before, with an
// older database.
func (v View) refused(key headscale.APIKey) bool {
	over := !key.Expiration.IsZero() && !v.Now.Before(key.Expiration.Add(maxClockSkew))
	return over || v.Expired[key.Prefix] && !v.Tag.Owns(key.Expiration)
}

// due is when the stored key is to be replaced.
func (v View) due() time.Time {
	return v.stored().Expiration.Add(-v.Settings.RotationBuffer)
}

// next is when there will be something to do if nothing happens before.
func (v View) next() time.Time {
	next := v.Now.Add(CheckInterval)
	sooner := func(t time.Time) {
		if t.After(v.Now) && t.Before(next) {
			next = t
		}
	}
	if v.stored() != nil {
		sooner(v.due())
	}
	for _, until := range v.Stuck {
		sooner(until)
	}
	if v.Record == nil {
		return next
	}
	for _, mark := range v.Record.Retiring {
		sooner(mark.NotBefore)
	}
	if len(v.Record.Pending) > 0 {
		sooner(v.Now.Add(pendingInterval))
	}
	return next
}

// storedPrefix is the prefix of the key that the Secret holds. The value is
// believed as long as its digest is right, else the note that was made of it.
func (r Record) storedPrefix() string {
	prefix, known := r.Key.Prefix()
	if known && (r.Prefix == "" || r.intact()) {
		return prefix
	}
	return r.Prefix
}

// intact reports whether the value is the one that was stored.
func (r Record) intact() bool {
	return !r.Key.IsZero() && r.Digest == digestOf(r.Key)
}
