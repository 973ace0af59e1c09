package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/internal/rotation/rotationtest"
)

var errAway = errors.New("no answer")

// issuer is a backend in memory.
type issuer[F any] struct {
	kind    rotationtest.Kind[F]
	now     *time.Time
	tellsID bool
	list    []rotation.Credential[F]
	created int
	// Each is asked before a call, and lost after a create; an error is the answer.
	fail func(call string) error
	lost error
}

func (i *issuer[F]) List(context.Context) ([]rotation.Credential[F], error) {
	return slices.Clone(i.list), i.fail("list")
}

func (i *issuer[F]) Create(_ context.Context, expiration time.Time) (rotation.Text, string, error) {
	if err := i.fail("create"); err != nil {
		return nil, "", err
	}
	id := i.add(expiration)
	if i.lost != nil {
		return nil, "", i.lost
	}
	if !i.tellsID {
		return i.kind.Text(id), "", nil
	}
	return i.kind.Text(id), id, nil
}

func (i *issuer[F]) add(expiration time.Time) string {
	i.created++
	id := strconv.Itoa(i.created)
	i.list = append(i.list, rotation.Credential[F]{ID: id, Expiration: expiration, CreatedAt: *i.now, Facts: i.kind.Facts})
	return id
}

func (i *issuer[F]) Expire(_ context.Context, id string) error {
	if err := i.fail("expire"); err != nil {
		return err
	}
	if credential := i.find(id); credential != nil {
		credential.Expiration = i.now.Add(-123 * time.Nanosecond) // The clock of a test may well show our tag.
	}
	return nil
}

func (i *issuer[F]) find(id string) *rotation.Credential[F] {
	n := slices.IndexFunc(i.list, func(c rotation.Credential[F]) bool { return c.ID == id })
	if n < 0 {
		return nil
	}
	return &i.list[n]
}

// memory is a store in memory.
type memory struct {
	record        *rotation.Record
	version, read int
	// fail is asked before a write, lost after it; an error is the answer.
	fail, lost func(record rotation.Record) error
}

func (m *memory) Read(context.Context) (*rotation.Record, error) {
	m.read = m.version
	if m.record == nil {
		return nil, nil //nolint:nilnil // There is no record, and nothing is wrong with that.
	}
	record := *m.record
	return &record, nil
}

func (m *memory) Write(_ context.Context, record rotation.Record) (rotation.Record, error) {
	if m.read != m.version {
		return rotation.Record{}, fmt.Errorf("%w: version %d", rotation.ErrChanged, m.version)
	}
	if err := m.fail(record); err != nil {
		return rotation.Record{}, err
	}
	// As in annotations.
	record.Ours, record.Regular = true, true
	record.Pending = rotation.ParsePending(rotation.FormatPending(record.Pending))
	record.Retiring = rotation.ParseRetiring(rotation.FormatRetiring(record.Retiring))
	m.edit(&record)
	m.read = m.version
	return record, m.lost(record)
}

// edit changes the record as somebody else would; nil deletes it.
func (m *memory) edit(record *rotation.Record) { m.record, m.version = record, m.version+1 }

// cut is what a step panics with where a process is killed.
type cut rotation.Step

// world is a rotation with all that it works on.
type world[F any] struct {
	*WithT
	t        *testing.T
	now      time.Time
	issuer   *issuer[F]
	store    *memory
	kind     rotationtest.Kind[F]
	settings rotation.Settings
	// usable reports whether the backend accepts a credential that has not expired.
	usable func(F) bool
	tag    rotation.Tag
	state  *rotation.State
	// kill is asked after each step whether the process ends there.
	kill    func(step rotation.Step) bool
	stored  []rotation.Reason
	expired int
	// repaired is how often the record was corrected.
	repaired int
}

func newWorld[F any](t *testing.T, kind rotationtest.Kind[F]) *world[F] {
	w := &world[F]{
		WithT: NewWithT(t), t: t, now: rotationtest.Noon, kind: kind, tag: rotationtest.Tag, state: rotation.NewState(),
		settings: rotation.Settings{Expiration: 24 * time.Hour, RotationBuffer: 12 * time.Hour},
		usable:   func(F) bool { return true },
		kill:     func(rotation.Step) bool { return false },
	}
	w.issuer = &issuer[F]{kind: kind, now: &w.now, tellsID: kind.Rules.IDOf != nil, fail: func(string) error { return nil }}
	w.store = &memory{fail: func(rotation.Record) error { return nil }, lost: func(rotation.Record) error { return nil }}
	w.issuer.add(rotationtest.Noon.Add(10 * 365 * 24 * time.Hour)) // somebody else's
	w.issuer.created = 1
	return w
}

func (w *world[F]) Decided(rotation.View[F], rotation.Decision) {}
func (w *world[F]) Failed(error)                                {}

func (w *world[F]) Reached(step rotation.Step) {
	if w.kill(step) {
		panic(cut(step))
	}
}

func (w *world[F]) Did(event rotation.Event) {
	switch event.Step {
	case rotation.StepStore:
		w.stored = append(w.stored, event.Reason)
	case rotation.StepExpire:
		w.expired++
	case rotation.StepRepair:
		w.repaired++
	}
}

// converge has a rotation do what is to be done, and returns when to do so again. A
// process that is killed loses its State, and starts again.
func (w *world[F]) converge() (next time.Time) {
	rotator := rotation.Rotator[F]{
		Backend: w.issuer, Store: w.store, Observer: w, Rules: w.kind.Rules, Settings: w.settings, Tag: w.tag,
		Clock: func() time.Time { return w.now }, State: w.state,
	}
	defer func() {
		killed := recover()
		if killed == nil {
			return
		}
		if _, is := killed.(cut); !is {
			panic(killed)
		}
		w.state = rotation.NewState()
		next = w.now.Add(time.Second)
	}()
	_, decision, err := rotator.Converge(w.t.Context())
	var throttled *rotation.ThrottledError
	switch {
	case errors.As(err, &throttled):
		return throttled.Until
	case err != nil:
		return w.now.Add(time.Second)
	default:
		return decision.Next
	}
}

// pass lets time go by.
func (w *world[F]) pass(length time.Duration) {
	w.t.Helper()
	until := w.now.Add(length)
	for !w.now.After(until) {
		next := w.converge()
		w.Expect(next).To(BeTemporally(">", w.now))
		w.now = next
	}
	w.now = until
}

// accepted are the IDs of our credentials that the backend accepts.
func (w *world[F]) accepted() []string {
	var ids []string
	for _, credential := range w.issuer.list[1:] {
		if credential.Expiration.After(w.now) && w.usable(credential.Facts) {
			ids = append(ids, credential.ID)
		}
	}
	return ids
}

// works reports whether the backend accepts the credential in the record.
func (w *world[F]) works() bool {
	return w.store.record != nil && w.store.record.Text != nil && slices.ContainsFunc(w.accepted(), func(id string) bool {
		return w.kind.Text(id) == w.store.record.Text
	})
}

// atRest is the promise: exactly one credential of ours is accepted, it is the one in the
// record, the ledger is empty, and somebody else's credential is as it was.
func (w *world[F]) atRest() {
	w.t.Helper()
	w.Expect(w.works()).To(BeTrue())
	w.Expect(w.accepted()).To(ConsistOf(w.store.record.ID))
	w.Expect(w.store.record.Pending).To(BeEmpty())
	w.Expect(w.store.record.Retiring).To(BeEmpty())
	w.Expect(w.issuer.list[0].Expiration).To(Equal(rotationtest.Noon.Add(10 * 365 * 24 * time.Hour)))
}

// created is how many credentials of ours were created.
func (w *world[F]) created() int { return w.issuer.created - 1 }
