package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Backend issues credentials. Its errors say what failed.
type Backend[F any] interface {
	// List returns all credentials that the backend knows, expired ones too.
	List(ctx context.Context) ([]Credential[F], error)
	// Create issues a credential that expires at the given instant. If the response does not have
	// its ID, id is empty, and the ID is looked up in the list. Even after an error, the credential
	// may exist, and may appear in a later list.
	Create(ctx context.Context, expiration time.Time) (text Text, id string, err error)
	// Expire makes the backend refuse a credential from now on. It is not an error if the backend
	// does not know the credential, or if it is already expired.
	Expire(ctx context.Context, id string) error
}

// Store is where the record of one credential is kept.
type Store interface {
	// Read returns the record, nil if there is none.
	Read(ctx context.Context) (*Record, error)
	// Write makes the Secret say what the record says, if it is still what it was when it
	// was last read or written, and returns the record as it is then. Everything else that
	// the Secret holds stays. An error wraps ErrChanged if the Secret was changed meanwhile.
	Write(ctx context.Context, record Record) (Record, error)
}

var (
	// ErrChanged says that a write failed because the Secret has changed since it was read. Reading
	// it again is enough to recover.
	ErrChanged = errors.New("the Secret was changed meanwhile")

	// ErrUnsettled says that the decisions do not converge.
	ErrUnsettled = errors.New("something else is writing to them")
)

// ObserveError says that reading the record or the list failed, so nothing was done.
type ObserveError struct{ Err error }

func (e *ObserveError) Error() string { return e.Err.Error() }

// Unwrap returns what failed.
func (e *ObserveError) Unwrap() error { return e.Err }

// ThrottledError says that a credential is needed and must not be created yet.
type ThrottledError struct {
	// Until is when it may be.
	Until time.Time
	// Cause is the decision to create it.
	Cause Decision
	// Noun is what it is called.
	Noun string
}

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("a new %s is needed (%s), and %ss were created too often lately; the next one is created at %s",
		e.Noun, e.Cause.Message, e.Noun, ShowTime(e.Until))
}

// Observer is notified of what a Rotator does.
type Observer[F any] interface {
	// Decided is called with each decision and all that it was made of.
	Decided(view View[F], decision Decision)
	// Reached is called after the external effect of a step, or its failure, and before anything
	// else is done. Tests interrupt a rotation here.
	Reached(step Step)
	// Did is called after a step that others see: store, expire and repair.
	Did(event Event)
	// Failed is called when a credential cannot be expired, which holds up nothing else.
	Failed(err error)
}

// Event is a step that was taken.
type Event struct {
	Step    Step
	Reason  Reason
	Message string
	// ID is that of the credential that was stored or expired.
	ID string
	// Expiration and Replaces describe one that was stored: when it expires, and the IDs
	// of those that it replaces.
	Expiration time.Time
	Replaces   []string
}

// Rotator keeps one credential. It is not safe for concurrent use.
type Rotator[F any] struct {
	Backend  Backend[F]
	Store    Store
	Observer Observer[F]
	Rules    Rules[F]
	Settings Settings
	Tag      Tag
	// Clock returns the time.
	Clock func() time.Time
	// State is what is remembered between two calls.
	State *State

	// record is the record as it was last read or written, nil if there is none.
	record *Record
}

// maxRounds bounds the decisions taken in one go. A rotation takes three.
const maxRounds = 6

// Converge observes, decides and executes until nothing is left to do now, and returns
// the last decision and what it was made of. The error is an *ObserveError, a
// *ThrottledError, ErrUnsettled, or what the Backend or the Store returned.
func (r *Rotator[F]) Converge(ctx context.Context) (View[F], Decision, error) {
	for range maxRounds {
		view, err := r.observe(ctx)
		if err != nil {
			return view, Decision{}, &ObserveError{err}
		}
		decision := Decide(view)
		r.Observer.Decided(view, decision)
		if decision.AtRest() {
			if decision.Action == None {
				r.State.upToDate(view.Now)
			}
			return view, decision, nil
		}
		if err := r.execute(ctx, view, decision); err != nil && !errors.Is(err, ErrChanged) {
			return view, decision, err
		}
	}
	return View[F]{}, Decision{}, fmt.Errorf("the Secret or %s's %ss keep changing while they are being corrected; %w",
		r.Rules.Issuer, r.Rules.Noun, ErrUnsettled)
}

// UpToDate lists the credentials and reports whether nothing has to be done according to the record
// that was last read or written; it does not read the Store. So a caller that watches the record
// detects changes of a credential in the backend with a single list.
func (r *Rotator[F]) UpToDate(ctx context.Context) (bool, error) {
	credentials, err := r.Backend.List(ctx)
	if err != nil {
		return false, err
	}
	return Decide(r.view(credentials)).AtRest(), nil
}

// observe gathers all that a decision depends on.
func (r *Rotator[F]) observe(ctx context.Context) (View[F], error) {
	credentials, err := r.Backend.List(ctx)
	if err != nil {
		return View[F]{}, err
	}
	if r.record, err = r.Store.Read(ctx); err != nil {
		return View[F]{}, fmt.Errorf("reading the Secret: %w", err)
	}
	return r.view(credentials), nil
}

// view is all that a decision depends on, with the record as it is known here.
func (r *Rotator[F]) view(credentials []Credential[F]) View[F] {
	view := View[F]{Now: r.now(), Record: r.record, Credentials: credentials, Tag: r.Tag, Settings: r.Settings, Rules: r.Rules}
	reconcileState(r.State, &view)
	return view
}

// now is the time by the wall clock: a sleeping machine's monotonic clock stands still.
func (r *Rotator[F]) now() time.Time { return r.Clock().Round(0) }
