package apikey

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"infrado.cloud/headscale-operator/internal/rotation"
)

// stuckAfter is how long a Manager may take from one heartbeat to the next. It gives
// one at least every pollInterval while it sleeps, and else before each list of keys and
// before each key that it expires. Between two of these are at most five calls (list, read,
// intend, create, store), each of which gives up after ten seconds: three minutes are more
// than three times as much.
const stuckAfter = 3 * time.Minute

// errNotStarted says that there was no heartbeat yet.
var errNotStarted = errors.New("the API Key Manager has not started yet")

// heartbeat is the time of the last one. The times have a monotonic reading where they come
// from time.Now, so that neither a clock that is set nor a machine that sleeps counts.
type heartbeat struct{ last atomic.Pointer[time.Time] }

func (p *heartbeat) beat(now time.Time) { p.last.Store(&now) }

// check returns an error if the last heartbeat is too long ago.
func (p *heartbeat) check(now time.Time) error {
	last := p.last.Load()
	if last == nil {
		return errNotStarted
	}
	if silence := now.Sub(*last); silence > stuckAfter {
		return fmt.Errorf("the API Key Manager has been stuck for %s: its last activity was at %s",
			silence.Truncate(time.Second), rotation.ShowTime(*last))
	}
	return nil
}

// Notice returns a sentence about what is wrong and hurts no key, empty if there is nothing.
// It may be called at any time.
func (m *Manager) Notice() string {
	if notice := m.report.notice.Load(); notice != nil {
		return *notice
	}
	return ""
}

// Alive returns nil while the Manager works or waits for its time, and a sentence when
// it does neither, which no failure outside can bring about. It may be called at any
// time.
func (m *Manager) Alive() error { return m.heartbeat.check(m.Clock()) }
