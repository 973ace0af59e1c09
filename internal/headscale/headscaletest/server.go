// Package headscaletest plays Headscale's admin API on a Unix socket, for tests: the
// formats of several releases over either transport, and the failures that a real
// server does not produce on demand.
//
// What it answers follows replies that were recorded from real servers. It is a
// fake all the same: that a real Headscale behaves like this is for the integration
// tests to show.
package headscaletest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// Release is the release of Headscale whose behaviour is played.
type Release int

const (
	// V026 is Headscale 0.26: as V027, but it checks the names of users, and shows nodes under the
	// new name of a user that was renamed; later ones do so after a restart only.
	V026 Release = iota
	// V027 is Headscale 0.27: gRPC, API keys "<7>.<32>", bare prefixes in the list, pre-auth
	// keys of 48 hexadecimal digits that a list shows.
	V027
	// V028 is Headscale 0.28.0: gRPC, keys "hskey-api-<12>-<64>" and "hskey-auth-<12>-<64>",
	// masked in lists. It loses all pre-auth keys with any user.
	V028
	// V029 is Headscale 0.29: as V028, but it loses no keys, and a node that is tagged belongs to no
	// user.
	V029
	// V030 is Headscale from 0.30 on: HTTP/1.1 with JSON, hexadecimal keys in the
	// format of V028.
	V030
)

// String names the releases and their transport.
func (r Release) String() string {
	return [...]string{"v0.26 (gRPC)", "v0.27 (gRPC)", "v0.28 (gRPC)", "v0.29 (gRPC)", "v0.30 (HTTP)"}[r]
}

// Server is a Headscale that can be made to fail. It is safe for concurrent use.
type Server struct {
	Faults
	path string
	now  func() time.Time

	mu       sync.Mutex
	next     Release // from the next Start on
	current  Release
	database *Database
	calls    map[Operation]int
	texts    []string
	created  int
	thawed   chan struct{} // closed by Thaw; nil while the server is not frozen
	run      *run          // nil while the server is down
}

// Option changes a Server.
type Option func(*Server)

// WithClock sets the clock by which keys are created and expire. The default is the
// system's.
func WithClock(now func() time.Time) Option {
	return func(s *Server) { s.now = now }
}

// New returns a server with an empty database that will listen on the socket path. It is
// down until Start.
func New(socketPath string, release Release, options ...Option) *Server {
	s := &Server{
		path: socketPath, now: time.Now, next: release, current: release, database: NewDatabase(), calls: map[Operation]int{},
	}
	for _, option := range options {
		option(s)
	}
	return s
}

// SocketPath returns the path of the socket.
func (s *Server) SocketPath() string { return s.path }

// SetRelease plays another release from the next Start on: an upgrade or a downgrade.
func (s *Server) SetRelease(release Release) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = release
}

// Database returns the database in use.
func (s *Server) Database() *Database {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.database
}

// SetDatabase uses another database from the next call on.
func (s *Server) SetDatabase(database *Database) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.database = database
}

// CreateKey makes a key as somebody else would with Headscale's command line: it meets no
// fault, and works while the server is down. A nil expiration is never.
func (s *Server) CreateKey(expiration *time.Time) Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.insert(expiration)
}

// CreatedKeys returns how many keys the admin API has created, in all databases.
func (s *Server) CreatedKeys() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.created
}

// Texts returns the text of every API key ever made, by whomever, and of every pre-auth key that
// the admin API was made to create, in all databases.
func (s *Server) Texts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.texts)
}

// Calls returns how often an operation was called, including calls that failed.
func (s *Server) Calls(operation Operation) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

// ValidKeys returns the keys in the database that have not expired. Headscale accepts a
// key at the very instant of its expiration too; on a test's clock, which may stand still,
// that instant could last.
func (s *Server) ValidKeys() []Record {
	now := s.now()
	return slices.DeleteFunc(s.Database().Keys(), func(key Record) bool { return key.Expiration != nil && !now.Before(*key.Expiration) })
}

// Validate says whether Headscale would let the bearer of the key in now. A key in a
// format that the release does not know is refused even if the database has it.
func (s *Server) Validate(text string) bool {
	s.mu.Lock()
	release := s.current
	s.mu.Unlock()
	head, _, dotted := strings.Cut(text, ".")
	if release < V028 && !dotted || release >= V028 && dotted && len(head) != 7 {
		return false
	}
	return slices.ContainsFunc(s.ValidKeys(), func(key Record) bool { return key.Text == text })
}

// Start listens on the socket and serves. Like Headscale it removes a socket that a
// predecessor left.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		return errors.New("the fake Headscale is running")
	}
	s.current = s.next
	s.database.refresh()
	var err error
	s.run, err = startRun(s, s.current)
	return err
}

// Stop ends the server: the socket is gone, connections are cut, calls in progress
// are not done. It returns when nothing of it is left. Without a Start it does nothing.
func (s *Server) Stop() { s.end(true) }

// Crash is Stop, but leaves the file of the socket behind, which refuses connections.
func (s *Server) Crash() { s.end(false) }

// Freeze makes the server hang: connections are accepted, nothing is answered, calls
// in progress stand still.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.thawed == nil {
		s.thawed = make(chan struct{})
	}
}

// Thaw ends Freeze. What came in meanwhile is done now.
func (s *Server) Thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.thawed != nil {
		close(s.thawed)
		s.thawed = nil
	}
}

func (s *Server) end(unlink bool) {
	s.mu.Lock()
	run := s.run
	s.run = nil
	s.mu.Unlock()
	if run != nil {
		run.end(unlink)
	}
}

// perform counts a call and does its work, or what a fault makes of it. It does not know
// the caller's context: Headscale goes on when the caller has left.
func (s *Server) perform(operation Operation, work func() error) error {
	s.mu.Lock()
	run := s.run
	if run == nil {
		s.mu.Unlock()
		return errCut
	}
	run.inside.Add(1)
	defer run.inside.Done()
	s.calls[operation]++
	s.mu.Unlock()
	return s.Strike(operation, run.wait, work)
}

// createKey makes a key for a caller of the admin API.
func (s *Server) createKey(expiration time.Time) (text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created++
	return s.insert(&expiration).Text
}

// insert makes a key; s.mu is held.
func (s *Server) insert(expiration *time.Time) Record {
	prefix, text := newKey(s.current)
	s.texts = append(s.texts, text)
	return s.database.Insert(Record{Prefix: prefix, Text: text, CreatedAt: s.now(), Expiration: expiration})
}

// createPreAuthKey makes a pre-auth key for a caller of the admin API.
func (s *Server) createPreAuthKey(release Release, key PreAuthKey) (shownPreAuthKey, error) {
	created, err := s.Database().createPreAuthKey(release, key)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.texts = append(s.texts, created.Text)
	}
	return created, err
}

// expire lets the key with the id, or else the one with the prefix, expire now.
func (s *Server) expire(id uint64, prefix string) error {
	return s.Database().expire(id, prefix, s.now())
}
