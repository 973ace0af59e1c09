// Package rotationtest has the decisions that every kind of credential shares: a table of
// views with what is to be decided, for the tests of package rotation and of each kind that
// is kept with it.
package rotationtest

import (
	"time"

	"infrado.cloud/headscale-operator/internal/rotation"
)

// Noon is the time of every view that does not say another one.
var Noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// Tag is the tag of the views, and former that of an earlier version.
var (
	Tag    = rotation.NewTag("test").After(former)
	former = rotation.NewTag("former")
)

// The IDs of the views' credentials: the stored one, and another.
const (
	OurID   = "OurPrefix-01"
	OtherID = "Other_Prefix"
)

// Kind is a kind of credential.
type Kind[F any] struct {
	Rules rotation.Rules[F]
	// Text makes up the text of a credential with an ID.
	Text func(id string) rotation.Text
	// Facts are what the list says of a credential that is good.
	Facts F
}

// GoodView is a view in which nothing is to be done for half an hour.
func (k Kind[F]) GoodView() rotation.View[F] {
	expiration := Tag.Expiration(Noon.Add(time.Hour))
	text := k.Text(OurID)
	return rotation.View[F]{
		Now: Noon, Tag: Tag, Rules: k.Rules,
		Record: &rotation.Record{
			Ours: true, Regular: true, Text: text, ID: OurID, Digest: rotation.DigestOf(text), Expiration: expiration, CreatedAt: Noon,
		},
		Credentials: []rotation.Credential[F]{{ID: OurID, Expiration: expiration, CreatedAt: Noon, Facts: k.Facts}},
		Settings:    rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute},
	}
}

// Due is when the credential of GoodView is to be replaced.
func (k Kind[F]) Due() time.Time { return k.GoodView().Due() }

// Decision is a view and what is to be decided.
type Decision[F any] struct {
	Name   string
	View   rotation.View[F]
	Action rotation.Action
	Reason rotation.Reason
}

// change makes a view differ.
type change[F any] = func(v *rotation.View[F])

// table collects decisions about views that differ from GoodView.
type table[F any] struct {
	kind Kind[F]
	rows []Decision[F]
}

func (t *table[F]) add(name string, action rotation.Action, reason rotation.Reason, changes ...change[F]) {
	view := t.kind.GoodView()
	for _, change := range changes {
		change(&view)
	}
	t.rows = append(t.rows, Decision[F]{name, view, action, reason})
}

// list adds a credential to a view.
func (t *table[F]) list(id string, expiration time.Time) change[F] {
	return func(v *rotation.View[F]) {
		v.Credentials = append(v.Credentials, rotation.Credential[F]{ID: id, Expiration: expiration, Facts: t.kind.Facts})
	}
}

// at sets the time of a view.
func (t *table[F]) at(now time.Time) change[F] {
	return func(v *rotation.View[F]) { v.Now = now }
}

// pend notes a credential as pending.
func (t *table[F]) pend(expiration, written time.Time) change[F] {
	return func(v *rotation.View[F]) {
		v.Record.Pending = []rotation.PendingEntry{{Expiration: expiration, Written: written}}
	}
}

// retire notes another credential as retiring.
func (t *table[F]) retire(notBefore time.Time) change[F] {
	return func(v *rotation.View[F]) {
		v.Record.Retiring = []rotation.RetiringEntry{{ID: OtherID, NotBefore: notBefore}}
	}
}

// stick prevents the other credential from being expired before a time.
func (t *table[F]) stick(until time.Time) change[F] {
	return func(v *rotation.View[F]) { v.Stuck = map[string]time.Time{OtherID: until} }
}

// Decisions are those that every kind shares.
func (k Kind[F]) Decisions() []Decision[F] {
	t := &table[F]{kind: k}
	t.stored()
	t.times()
	t.orphans()
	t.ledger()
	return t.rows
}

func (t *table[F]) stored() {
	type view = rotation.View[F]
	t.add("all is well", rotation.None, rotation.ReasonUpToDate)
	t.add("no Secret", rotation.Create, rotation.ReasonSecretMissing, func(v *view) { v.Record = nil })
	t.add("not ours", rotation.Blocked, rotation.ReasonNotOurs, func(v *view) { v.Record.Ours = false })
	t.add("not ours, with our unsaved key at hand", rotation.Blocked, rotation.ReasonNotOurs, func(v *view) {
		v.Record.Ours, v.Unsaved = false, &rotation.Created{}
	})
	t.add("no key", rotation.Create, rotation.ReasonKeyMissing, func(v *view) { v.Record.Text = nil })
	t.add("an empty key", rotation.Create, rotation.ReasonKeyMissing, func(v *view) { v.Record.Text = empty{} })
	t.add("somebody else's key", rotation.Create, rotation.ReasonValueChanged, func(v *view) { v.Record.Text = t.kind.Text(OtherID) })
	t.add("no digest", rotation.Create, rotation.ReasonValueChanged, func(v *view) { v.Record.Digest = "" })
	t.add("not listed", rotation.Create, rotation.ReasonKeyUnknown, func(v *view) { v.Credentials = nil })
	t.add("a rotation was requested", rotation.Create, rotation.ReasonRequested, func(v *view) { v.Record.Requested = "now" })
	t.add("the request was handled", rotation.None, rotation.ReasonUpToDate, func(v *view) {
		v.Record.Requested, v.Record.Handled = "now", "now"
	})
	immutable := func(v *view) { v.Record.Immutable = true }
	t.add("immutable and good", rotation.None, rotation.ReasonUpToDate, immutable)
	t.add("immutable and due", rotation.Blocked, rotation.ReasonImmutable, immutable, t.at(t.kind.Due()))
	t.add("expiration differs from Headscale's", rotation.Repair, rotation.ReasonAnnotationsDiffer, func(v *view) {
		v.Record.Expiration = Noon.Add(999 * time.Hour)
	})
	t.add("creation time missing", rotation.Repair, rotation.ReasonAnnotationsDiffer, func(v *view) { v.Record.CreatedAt = time.Time{} })
	t.add("ledger unreadable", rotation.Repair, rotation.ReasonAnnotationsDiffer, func(v *view) { v.Record.Regular = false })
	unsaved := func(v *view) { v.Unsaved = &rotation.Created{ID: OtherID, Expiration: Noon.Add(2 * time.Hour)} }
	t.add("an unsaved key with its pending entry", rotation.Save, rotation.ReasonUnsaved, unsaved, t.pend(Noon.Add(2*time.Hour), Noon))
	t.add("an unsaved key without its pending entry", rotation.Revoke, rotation.ReasonSettling, unsaved)
	t.add("an unsaved key without a Secret", rotation.Revoke, rotation.ReasonSettling, func(v *view) {
		v.Record, v.Unsaved = nil, &rotation.Created{ID: OtherID}
	})
}

func (t *table[F]) times() {
	type view = rotation.View[F]
	due, expiration := t.kind.Due(), t.kind.GoodView().Record.Expiration
	t.add("never expires", rotation.Create, rotation.ReasonLifetimeShortened, func(v *view) { v.Credentials[0].Expiration = time.Time{} })
	t.add("expired by hand", rotation.Create, rotation.ReasonKeyExpired, func(v *view) { v.Credentials[0].Expiration = Noon })
	t.add("a nanosecond before it is due", rotation.None, rotation.ReasonUpToDate, t.at(due.Add(-1)))
	t.add("at the instant when it is due", rotation.Create, rotation.ReasonDue, t.at(due))
	t.add("after it was due", rotation.Create, rotation.ReasonDue, t.at(due.Add(time.Minute)))
	t.add("a nanosecond before it expires", rotation.Create, rotation.ReasonDue, t.at(expiration.Add(-1)))
	t.add("at the instant when it expires", rotation.Create, rotation.ReasonKeyExpired, t.at(expiration))
	t.add("lives longer than the settings allow", rotation.Create, rotation.ReasonLifetimeShortened, func(v *view) {
		v.Settings = rotation.Settings{Expiration: 40 * time.Minute, RotationBuffer: 20 * time.Minute}
	})
	t.add("lives longer than the settings allow, within the clocks' difference", rotation.None, rotation.ReasonUpToDate, func(v *view) {
		v.Settings = rotation.Settings{Expiration: 51 * time.Minute, RotationBuffer: 20 * time.Minute}
	})
}

func (t *table[F]) orphans() {
	type view = rotation.View[F]
	orphan := t.list(OtherID, Tag.Expiration(Noon.Add(48*time.Hour)))
	t.add("an orphan of ours", rotation.Revoke, rotation.ReasonOrphaned, orphan)
	t.add("an orphan that has just expired by our clock", rotation.Revoke, rotation.ReasonOrphaned,
		t.list(OtherID, Tag.Expiration(Noon.Add(-5*time.Minute))))
	t.add("a key of ours that expired long ago", rotation.None, rotation.ReasonUpToDate,
		t.list(OtherID, Tag.Expiration(Noon.Add(-time.Hour))))
	earlier := func(v *view) {
		v.Credentials[0].Expiration = former.Expiration(Noon.Add(time.Hour))
		v.Record.Expiration = v.Credentials[0].Expiration
	}
	before := t.list(OtherID, former.Expiration(Noon.Add(48*time.Hour)))
	t.add("an orphan of an earlier version, whose key is stored", rotation.Revoke, rotation.ReasonOrphaned, earlier, before)
	t.add("a key with the former tag, which may be another's by now", rotation.None, rotation.ReasonUpToDate, before)
	t.add("an orphan of ours beside the stored key of an earlier version", rotation.Revoke, rotation.ReasonOrphaned, earlier, orphan)
	t.add("others' keys", rotation.None, rotation.ReasonUpToDate,
		t.list(OtherID, Noon.Add(87600*time.Hour)), t.list("never", time.Time{}))
	t.add("a key with our tag that belongs to another record", rotation.None, rotation.ReasonUpToDate, orphan, func(v *view) {
		v.Rules.Foreign = func(c rotation.Credential[F]) bool { return c.ID == OtherID }
	})
	t.add("an orphan, and the stored key is bad: the orphan may be all there is", rotation.Create, rotation.ReasonKeyUnknown,
		func(v *view) { v.Credentials = nil }, orphan)
	t.add("an orphan that cannot be expired yet", rotation.None, rotation.ReasonUpToDate, orphan, t.stick(Noon.Add(time.Second)))
	t.add("a key that was expired here and is back with an older database", rotation.Revoke, rotation.ReasonOrphaned,
		orphan, func(v *view) { v.Expired = map[string]bool{OtherID: true} })
}

// ledger are the decisions about pending and retiring keys.
func (t *table[F]) ledger() {
	type view = rotation.View[F]
	due, soon, later := t.kind.Due(), Noon.Add(time.Hour), Noon.Add(2*time.Hour)
	t.add("a pending key appeared", rotation.Revoke, rotation.ReasonSettling,
		t.pend(Tag.Expiration(later), Noon), t.list(OtherID, Tag.Expiration(later)))
	t.add("a pending key of an earlier version appeared", rotation.Revoke, rotation.ReasonSettling,
		t.pend(former.Expiration(later), Noon), t.list(OtherID, former.Expiration(later)))
	t.add("a pending key did not appear yet", rotation.None, rotation.ReasonUpToDate,
		t.pend(soon, Noon.Add(-rotation.PendingTimeout+1)))
	t.add("a pending key did not appear in time", rotation.Revoke, rotation.ReasonSettling,
		t.pend(soon, Noon.Add(-rotation.PendingTimeout)))
	t.add("a pending entry is dropped before a due key is replaced", rotation.Revoke, rotation.ReasonSettling,
		t.pend(soon, Noon.Add(-time.Hour)), t.at(due))
	t.add("a pending entry whose key is not ours", rotation.None, rotation.ReasonUpToDate,
		t.pend(later, Noon), t.list(OtherID, later))
	t.add("a pending entry of a clock that was ahead", rotation.Revoke, rotation.ReasonSettling, t.pend(soon, Noon.Add(24*time.Hour)))

	t.add("a key to retire now", rotation.Revoke, rotation.ReasonSettling, t.retire(Noon), t.list(OtherID, soon))
	t.add("a key to retire later", rotation.None, rotation.ReasonUpToDate,
		t.retire(Noon.Add(1)), t.list(OtherID, Tag.Expiration(soon)), func(v *view) { v.Settings.RevocationDelay = time.Minute })
	t.add("a key to retire that Headscale does not know", rotation.Revoke, rotation.ReasonSettling, t.retire(soon))
	t.add("a key to retire by a clock that was ahead", rotation.Revoke, rotation.ReasonSettling,
		t.retire(Noon.Add(24*time.Hour)), t.list(OtherID, soon))
	t.add("a key to retire that cannot be expired yet", rotation.None, rotation.ReasonUpToDate,
		t.retire(Noon), t.list(OtherID, Tag.Expiration(soon)), t.stick(Noon.Add(time.Second)))
	t.add("a key that cannot be expired does not keep a due one from being replaced", rotation.Create, rotation.ReasonDue,
		t.at(due), t.retire(Noon), t.list(OtherID, Tag.Expiration(later)), t.stick(due.Add(time.Second)))
	t.add("a key that was expired here, by a Headscale whose clock is ahead", rotation.Revoke, rotation.ReasonSettling,
		t.retire(Noon), t.list(OtherID, Noon.Add(5*time.Minute)), func(v *view) { v.Expired = map[string]bool{OtherID: true} })
}

// empty is a text that is none.
type empty struct{}

func (empty) Reveal() string { return "" }
