package rotation_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/internal/rotation/rotationtest"
)

const day = 24 * time.Hour

// settled is a time after which every pending entry is dropped.
const settled = rotation.PendingTimeout + time.Minute

func TestTimelines(t *testing.T) {
	t.Run("of a credential whose text tells its ID", func(t *testing.T) { timelines(t, plainKind) })
	t.Run("of a credential for one use", func(t *testing.T) { timelines(t, onceKind) })
}

func timelines[F any](t *testing.T, kind rotationtest.Kind[F]) {
	for name, story := range map[string]func(w *world[F]){
		"a hundred days of rotations":                        hundredDays[F],
		"a revocation delay":                                 revocationDelay[F],
		"killed after each step":                             killedAfterEachStep[F],
		"killed at random":                                   killedAtRandom[F],
		"the answer of a create is lost":                     lostCreate[F],
		"a create finishes after its caller gave up":         lateCreate[F],
		"the answer of a write is lost":                      lostWrites[F],
		"writes are refused":                                 refusedWrites[F],
		"the write that stores is refused":                   refusedStore[F],
		"somebody else writes, too":                          conflicts[F],
		"a credential that cannot be expired":                stuckCredential[F],
		"the record is deleted":                              deletedRecord[F],
		"the backend's database is an older one":             olderDatabase[F],
		"the backend creates what is bad from the beginning": badFromTheBeginning[F],
		"a request":            request[F],
		"the record is edited": editedRecord[F],
	} {
		t.Run(name, func(t *testing.T) { story(newWorld(t, kind)) })
	}
}

func hundredDays[F any](w *world[F]) {
	for range 100 * 24 {
		w.pass(time.Hour)
		w.atRest()
	}
	w.Expect(w.created()).To(BeNumerically("~", 200, 1), "one every twelve hours, and up to a second")
}

// editedRecord has a correction be told of when it is written, and not before.
func editedRecord[F any](w *world[F]) {
	w.pass(time.Minute)
	edited := *w.store.record
	edited.Expiration = edited.Expiration.Add(1000 * time.Hour)
	w.store.edit(&edited)
	w.store.fail = func(rotation.Record) error { return errAway }
	w.converge()
	w.Expect(w.repaired).To(BeZero())
	w.store.fail = func(rotation.Record) error { return nil }
	w.converge()
	w.Expect(w.repaired).To(Equal(1))
	w.atRest()
	w.Expect(w.created()).To(Equal(1))
}

func revocationDelay[F any](w *world[F]) {
	w.settings.RevocationDelay = time.Hour
	w.pass(12*time.Hour + time.Minute)
	w.Expect(w.created()).To(Equal(2))
	w.Expect(w.accepted()).To(HaveLen(2))
	w.state = rotation.NewState()
	w.pass(58 * time.Minute)
	w.Expect(w.accepted()).To(HaveLen(2), "a restart must not shorten the delay")
	w.pass(2 * time.Minute)
	w.atRest()
}

func killedAfterEachStep[F any](w *world[F]) {
	for _, step := range []rotation.Step{rotation.StepIntend, rotation.StepCreate, rotation.StepStore, rotation.StepExpire, rotation.StepForget} {
		killed := false
		w.kill = func(reached rotation.Step) bool {
			due := reached == step && !killed
			killed = killed || due
			return due
		}
		w.pass(12*time.Hour + time.Second)
		w.pass(settled)
		w.Expect(killed).To(BeTrue(), string(step))
		w.atRest()
	}
}

func killedAtRandom[F any](w *world[F]) {
	chance := rand.New(rand.NewPCG(1, 2)) // the same in every run
	kills := 0
	w.kill = func(rotation.Step) bool {
		kill := chance.IntN(3) == 0
		if kill {
			kills++
		}
		return kill
	}
	for kills < 300 {
		w.pass(time.Duration(chance.IntN(int(13 * time.Hour))))
		if w.store.record != nil && len(w.stored) > 0 {
			w.Expect(w.works()).To(BeTrue(), "after %d kills", kills)
		}
	}
	w.kill = func(rotation.Step) bool { return false }
	w.pass(settled)
	w.atRest()
}

func lostCreate[F any](w *world[F]) {
	w.issuer.lost = errAway
	w.converge()
	w.Expect(w.created()).To(Equal(1))
	w.issuer.lost = nil
	w.pass(settled)
	w.atRest()
	w.Expect(w.created()).To(Equal(2))
	w.Expect(w.expired).To(Equal(1))
}

func lateCreate[F any](w *world[F]) {
	w.issuer.fail = func(call string) error {
		if call == "create" {
			return errAway
		}
		return nil
	}
	w.converge()
	late := w.store.record.Pending[0].Expiration
	w.issuer.fail = func(string) error { return nil }
	w.pass(45 * time.Second)
	w.Expect(w.works()).To(BeTrue())
	w.issuer.add(late)
	w.pass(rotation.PendingInterval + time.Second)
	w.atRest()
}

func lostWrites[F any](w *world[F]) {
	for n := range 3 {
		writes := 0
		w.store.lost = func(rotation.Record) error {
			if writes++; writes == n+1 {
				return errAway
			}
			return nil
		}
		w.pass(12*time.Hour + settled)
		w.atRest()
		w.Expect(w.created()).To(BeNumerically("<=", 2*(n+1)+1))
	}
}

func refusedWrites[F any](w *world[F]) {
	w.store.fail = func(rotation.Record) error { return errAway }
	w.pass(time.Hour)
	w.Expect(w.created()).To(BeZero())
	w.store.fail = func(rotation.Record) error { return nil }
	w.pass(time.Minute)
	w.atRest()
}

func refusedStore[F any](w *world[F]) {
	w.store.fail = func(record rotation.Record) error {
		if record.Text != nil {
			return errAway
		}
		return nil
	}
	w.pass(time.Hour)
	w.Expect(w.created()).To(Equal(1), "the one that was created is kept until it can be stored")
	w.Expect(w.state.Unsaved()).NotTo(BeNil())
	w.store.fail = func(rotation.Record) error { return nil }
	w.pass(time.Minute)
	w.atRest()
	w.Expect(w.created()).To(Equal(1))
	w.Expect(w.state.Unsaved()).To(BeNil())
	w.Expect(w.stored).To(Equal([]rotation.Reason{rotation.ReasonUnsaved}))
}

func conflicts[F any](w *world[F]) {
	writes := 0
	w.store.fail = func(rotation.Record) error {
		if writes++; writes%2 == 1 {
			return rotation.ErrChanged
		}
		return nil
	}
	w.pass(10*day + time.Minute)
	w.atRest()
	w.Expect(w.created()).To(BeNumerically("~", 21, 1))
}

func stuckCredential[F any](w *world[F]) {
	w.pass(time.Minute)
	w.issuer.fail = func(call string) error {
		if call == "expire" {
			return errors.New("the database is read-only for this")
		}
		return nil
	}
	for range 60 {
		w.pass(time.Hour)
		w.Expect(w.works()).To(BeTrue())
	}
	w.issuer.fail = func(string) error { return nil }
	w.pass(time.Minute)
	w.atRest()
}

func deletedRecord[F any](w *world[F]) {
	w.settings.RevocationDelay = 10 * time.Minute
	w.pass(time.Hour)
	w.store.edit(nil)
	w.pass(9 * time.Minute)
	w.Expect(w.accepted()).To(HaveLen(2), "who has the old one is given time")
	w.pass(2 * time.Minute)
	w.atRest()

	w.kind.Rules.LostRecord = rotation.ExpireAtOnce
	w.store.edit(nil)
	w.converge()
	w.atRest()
	w.Expect(w.created()).To(Equal(3))
}

func olderDatabase[F any](w *world[F]) {
	w.pass(time.Minute)
	before := w.issuer.list[1]
	w.pass(12 * time.Hour)
	w.issuer.list = append(w.issuer.list[:1:1], before)
	w.pass(time.Hour)
	w.atRest()
	w.Expect(w.created()).To(Equal(3))
}

func badFromTheBeginning[F any](w *world[F]) {
	w.kind.Rules.Policies = append(standard[F](), func(rotation.View[F]) (rotation.Reason, string, bool) {
		return rotation.ReasonValueChanged, "it is bad", true
	})
	w.pass(time.Hour)
	w.Expect(w.created()).To(BeNumerically("<=", 7+3600/48), "seven, then one every 48 to 60 s")
	w.Expect(w.accepted()).To(HaveLen(1))
}

func request[F any](w *world[F]) {
	w.pass(time.Minute)
	record := *w.store.record
	record.Requested = "now"
	w.store.edit(&record)
	w.converge()
	w.atRest()
	w.Expect(w.created()).To(Equal(2))
	w.pass(time.Hour)
	w.Expect(w.created()).To(Equal(2), "it is handled once")
}

// A credential for one use is replaced when it was used, as often as that happens.
func TestACredentialForOneUse(t *testing.T) {
	w := newWorld(t, onceKind)
	w.usable = func(facts onceFacts) bool { return !facts.used }
	w.pass(time.Minute)
	for uses := range 100 {
		w.issuer.find(w.store.record.ID).Facts.used = true
		w.Expect(w.works()).To(BeFalse())
		w.converge()
		w.atRest()
		w.Expect(w.created()).To(Equal(uses + 2))
		w.now = w.now.Add(2 * time.Second)
	}
	w.Expect(w.stored[1:]).To(HaveEach(reasonUsed))

	w.issuer.find(w.store.record.ID).Facts.user = "bob"
	w.now = w.now.Add(time.Minute)
	w.converge()
	w.atRest()
	w.Expect(w.stored[len(w.stored)-1]).To(Equal(reasonUserChanged))
}

// Two records of one backend can have the same tag. Each is told which credentials are the
// other's, and leaves them alone.
func TestTwoRecordsWithOneTag(t *testing.T) {
	first, second := newWorld(t, onceKind), newWorld(t, onceKind)
	second.issuer = first.issuer
	foreignTo := func(other *world[onceFacts]) func(rotation.Credential[onceFacts]) bool {
		return func(credential rotation.Credential[onceFacts]) bool {
			return other.store.record != nil && credential.ID == other.store.record.ID
		}
	}
	first.kind.Rules.Foreign, second.kind.Rules.Foreign = foreignTo(second), foreignTo(first)
	for range 100 {
		first.pass(time.Hour)
		second.pass(time.Hour)
		first.Expect(first.works() && second.works()).To(BeTrue())
		first.Expect(first.accepted()).To(ConsistOf(first.store.record.ID, second.store.record.ID))
	}
	first.Expect(first.created()).To(BeNumerically("~", 18, 2))
}

// Two owners of the same name on one backend, as two clusters with one database have them,
// are told apart by their tags. What an earlier version created may be either's, until each
// has created a credential of its own.
func TestTwoOwnersOnOneBackend(t *testing.T) {
	former := rotation.NewTag("test")
	for name, tags := range map[string][2]rotation.Tag{
		"new":                               {rotation.NewTag("a").After(former), rotation.NewTag("b").After(former)},
		"upgraded from one tag":             {former, former},
		"one upgraded, and a new one":       {former, rotation.NewTag("b").After(former)},
		"one never upgraded, and a new one": {former, rotation.NewTag("b").After(former)},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := newWorld(t, plainKind), newWorld(t, plainKind)
			second.issuer = first.issuer
			first.tag, second.tag = tags[0], tags[1]
			first.converge()
			second.converge()
			if name != "one never upgraded, and a new one" {
				first.tag, second.tag = rotation.NewTag("a").After(former), rotation.NewTag("b").After(former)
			}
			first.pass(10 * time.Second)
			second.pass(10 * time.Second)
			before := first.created()
			for range 10 {
				first.pass(time.Hour)
				second.pass(time.Hour)
				first.Expect(first.works() && second.works()).To(BeTrue())
				first.Expect(first.accepted()).To(ConsistOf(first.store.record.ID, second.store.record.ID))
			}
			first.Expect(first.created()-before).To(BeNumerically("<=", 1), "they fight over their keys")
		})
	}
}
