package apikey

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"infrado.cloud/headscale-operator/internal/rotation"
)

// stuckAfter is how long a Manager may take from one sign of life to the next. It gives
// one at least every clockInterval while it sleeps, and else before each list of keys and
// before each key that it expires. Between two of these are at most five calls (list, read,
// intend, create, store), each of which gives up after ten seconds: three minutes are more
// than three times as much.
const stuckAfter = 3 * time.Minute

// errNotBegun says that there was no sign of life yet.
var errNotBegun = errors.New("the API Key Manager has not begun to work yet")

// pulse is the last sign of life. The times have a monotonic reading where they come
// from time.Now, so that neither a clock that is set nor a machine that sleeps counts.
type pulse struct{ last atomic.Pointer[time.Time] }

func (p *pulse) beat(now time.Time) { p.last.Store(&now) }

// check returns an error if the last sign of life is too long ago.
func (p *pulse) check(now time.Time) error {
	last := p.last.Load()
	if last == nil {
		return errNotBegun
	}
	if silence := now.Sub(*last); silence > stuckAfter {
		return fmt.Errorf("the API Key Manager has been stuck for %s: its last sign of life was at %s",
			silence.Truncate(time.Second), rotation.FormatTime(last.Truncate(time.Second)))
	}
	return nil
}

// Alive returns nil while the Manager works or waits for its time, and a sentence when
// it does neither, which no failure outside can bring about. It may be called at any
// time.
func (m *Manager) Alive() error { return m.pulse.check(m.Clock()) }
