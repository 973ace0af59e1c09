package headscaletest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"
)

// Record is an API key as the fake's database has it. Unlike Headscale's, it keeps
// the whole key instead of a hash, so that tests can look for it where it must not be.
type Record struct {
	ID         uint64
	Prefix     string // bare
	Text       string // the whole key
	CreatedAt  time.Time
	Expiration *time.Time // nil: never
}

// errNotFound has the text of the error of Headscale's database.
var errNotFound = errors.New("record not found")

// Database is what a Headscale remembers over restarts. It is safe for concurrent use.
type Database struct {
	mu     sync.Mutex
	lastID uint64
	keys   []Record
	tailnet
}

// NewDatabase returns an empty database.
func NewDatabase() *Database { return &Database{} }

// Clone returns a copy: a backup, to go back to with SetDatabase.
func (d *Database) Clone() *Database {
	d.mu.Lock()
	defer d.mu.Unlock()
	copied := &Database{lastID: d.lastID, keys: slices.Clone(d.keys), tailnet: d.tailnet}
	copied.users, copied.preAuthKeys, copied.nodes = d.users.clone(), d.preAuthKeys.clone(), d.nodes.clone()
	return copied
}

// Keys returns all keys by ascending ID.
func (d *Database) Keys() []Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.keys)
}

// Insert adds a key with the next ID, whatever its other fields are, and returns it.
func (d *Database) Insert(key Record) Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lastID++
	key.ID = d.lastID
	d.keys = append(d.keys, key)
	return key
}

// Delete removes a key, and says whether there was one.
func (d *Database) Delete(prefix string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := len(d.keys)
	d.keys = slices.DeleteFunc(d.keys, func(key Record) bool { return key.Prefix == prefix })
	return len(d.keys) < before
}

// expire lets the key with the id, or else the one with the bare prefix, expire at the time.
func (d *Database) expire(id uint64, prefix string, at time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.keys, func(key Record) bool { return id != 0 && key.ID == id || id == 0 && key.Prefix == prefix })
	if i < 0 {
		return errNotFound
	}
	d.keys[i].Expiration = &at
	return nil
}

// newKey makes up a key in the format of the release.
func newKey(release Release) (prefix, text string) {
	if release < V028 {
		prefix = randomURLSafe(7)
		return prefix, prefix + "." + randomURLSafe(32)
	}
	random := randomURLSafe
	if release == V030 {
		random = randomHex
	}
	prefix = random(12)
	return prefix, "hskey-api-" + prefix + "-" + random(64)
}

// listedPrefix is how a release shows a prefix in its list.
func listedPrefix(release Release, prefix string) string {
	switch {
	case release < V028:
		return prefix
	case len(prefix) == 12:
		return "hskey-api-" + prefix + "-***"
	default:
		return prefix + "***"
	}
}

func randomURLSafe(length int) string {
	random := make([]byte, length)
	_, _ = rand.Read(random) // never fails
	return base64.RawURLEncoding.EncodeToString(random)[:length]
}

func randomHex(length int) string {
	random := make([]byte, length/2)
	_, _ = rand.Read(random) // never fails
	return hex.EncodeToString(random)
}
