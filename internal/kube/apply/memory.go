package apply

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Memory remembers how the API server changed what was applied: an admission policy or webhook may
// change values. Otherwise the same apply would be repeated in every reconcile. It is empty after a
// restart, which costs one no-op apply. The zero value is ready for use.
type Memory struct {
	lock    sync.Mutex
	results map[client.ObjectKey]map[string]result
}

// digest is a digest of an apply configuration.
type digest [sha256.Size]byte

// result is what was applied, and what our field manager then had.
type result struct{ applied, stored digest }

// Forget drops what is known of the objects of an owner.
func (m *Memory) Forget(owner client.ObjectKey) {
	m.lock.Lock()
	defer m.lock.Unlock()
	delete(m.results, owner)
}

// note notes the result of an apply of one object of an owner.
func (m *Memory) note(owner client.ObjectKey, object string, r result) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if r.applied == r.stored {
		delete(m.results[owner], object)
		return
	}
	if m.results == nil {
		m.results = map[client.ObjectKey]map[string]result{}
	}
	if m.results[owner] == nil {
		m.results[owner] = map[string]result{}
	}
	m.results[owner][object] = r
}

// knows reports whether an apply of one object of an owner had that result.
func (m *Memory) knows(owner client.ObjectKey, object string, r result) bool {
	m.lock.Lock()
	defer m.lock.Unlock()
	known, ok := m.results[owner][object]
	return ok && known == r
}

// digestOf is the digest of an apply configuration.
func digestOf(config any) (digest, error) {
	raw, err := json.Marshal(config)
	if err != nil {
		return digest{}, fmt.Errorf("encoding an apply configuration: %w", err)
	}
	return sha256.Sum256(raw), nil
}
