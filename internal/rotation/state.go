package rotation

import (
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// State is what is remembered of one credential's rotation between two calls, and may be
// lost with the process. A loop holds one; a reconciler keeps one for each object.
type State struct {
	// unsaved is a credential that was created and is not in the Secret yet.
	unsaved *Created
	// expected is whether the last credential was created because it was meant to be. It
	// counts as that once it is found good.
	expected bool
	creating limiter
	// expiring is the delay before a credential that could not be expired is tried again.
	expiring wait.Backoff
	// expired and stuck are the IDs of the credentials that were expired, and those that
	// could not be and when to try again.
	expired map[string]bool
	stuck   map[string]time.Time
}

// NewState returns the State of a credential of which nothing is known yet.
func NewState() *State {
	return &State{
		creating: newLimiter(NewBackoff(MaxCreateDelay)), expiring: NewBackoff(MaxRetryDelay),
		expired: map[string]bool{}, stuck: map[string]time.Time{},
	}
}

// Unsaved returns the text of a credential that is not in the Secret yet, nil if there is
// none. It must not get into any message.
func (s *State) Unsaved() Text {
	if s.unsaved == nil {
		return nil
	}
	return s.unsaved.Text
}

// reconcileState compares the state with what was observed, drops outdated entries, and adds the
// rest to the view.
func reconcileState[F any](s *State, view *View[F]) {
	if s.unsaved != nil && view.Record != nil && view.Record.Intact() && reveal(view.Record.Text) == reveal(s.unsaved.Text) {
		s.unsaved = nil // It was stored, and only the answer was lost.
	}
	if s.unsaved != nil && view.find(s.unsaved.ID) == nil {
		s.unsaved = nil // The backend lost it, with its database.
	}
	maps.DeleteFunc(s.expired, func(id string, _ bool) bool { return view.find(id) == nil })
	view.Unsaved, view.Expired, view.Stuck = s.unsaved, s.expired, s.stuck
	maps.DeleteFunc(s.stuck, func(id string, _ time.Time) bool {
		key := view.find(id)
		return key == nil || view.refused(*key)
	})
}

// upToDate notes that nothing is to be done.
func (s *State) upToDate(now time.Time) {
	if s.expected {
		s.creating.forget(now)
	}
	s.expected = false
	s.creating.idle(now)
}
