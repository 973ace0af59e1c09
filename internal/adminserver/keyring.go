package adminserver

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// Keyring is the set of accepted keys. It holds only their digests.
// It is safe for concurrent use.
type Keyring struct {
	clock func() time.Time

	mu   sync.RWMutex
	keys map[string]acceptedKey // by what Headscale calls the key, its prefix
}

// acceptedKey is a key that Headscale accepts, until its expiration; zero: for ever.
type acceptedKey struct {
	digest     [sha256.Size]byte
	expiration time.Time
}

// NewKeyring returns a Keyring that accepts no key.
func NewKeyring(clock func() time.Time) *Keyring {
	return &Keyring{clock: clock, keys: map[string]acceptedKey{}}
}

// Accept accepts a key from now on, until its expiration; zero: for ever.
func (k *Keyring) Accept(prefix string, key headscale.Key, expiration time.Time) {
	if prefix == "" || key.IsZero() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[prefix] = acceptedKey{digest: sha256.Sum256([]byte(key.Reveal())), expiration: expiration}
}

// Refuse refuses the key with the prefix from now on.
func (k *Keyring) Refuse(prefix string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, prefix)
}

// Listed refuses the keys that Headscale's list does not have, and those of which it says that
// they expired.
func (k *Keyring) Listed(listed []headscale.APIKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found := make(map[string]acceptedKey, len(k.keys))
	for i := range listed {
		if key, accepted := k.keys[listed[i].Prefix]; accepted {
			key.expiration = listed[i].Expiration
			found[listed[i].Prefix] = key
		}
	}
	k.keys = found
}

// accepts reports whether the text is a key that is valid now. How long that takes tells nothing
// about any key: digests are compared, in constant time, and with all of them.
func (k *Keyring) accepts(text string) bool {
	digest := sha256.Sum256([]byte(text))
	now := k.clock()
	k.mu.RLock()
	defer k.mu.RUnlock()
	accepted := 0
	for _, key := range k.keys {
		if key.expiration.IsZero() || now.Before(key.expiration) {
			accepted |= subtle.ConstantTimeCompare(digest[:], key.digest[:])
		}
	}
	return accepted == 1
}

// scheme is the authentication scheme of the Authorization header, whose case does not matter.
const scheme = "Bearer"

// admits reports whether a request has one Authorization header, with a valid key.
func (k *Keyring) admits(header http.Header) bool {
	values := header["Authorization"]
	if len(values) != 1 {
		return false
	}
	given, text, _ := strings.Cut(values[0], " ")
	return strings.EqualFold(given, scheme) && k.accepts(text)
}
