package apply

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Memory remembers how the API server changed what was applied: an admission policy or webhook may
// change values. Otherwise the same apply would be repeated in every reconcile. It also remembers
// with which resource version an object was up to date: that one need not be compared again. It is
// empty after a restart, which costs a comparison, and one no-op apply of what was changed. The zero
// value is ready for use.
type Memory struct {
	lock   sync.Mutex
	owners map[client.ObjectKey]map[string]known
}

// digest is a digest of an apply configuration.
type digest [sha256.Size]byte

// known is what is remembered of one object.
type known struct {
	// result is that of the last apply; zero where the API server changed nothing.
	result result
	// current is the version that was up to date last.
	current version
}

// result is what was applied, and what our field manager then had.
type result struct{ applied, stored digest }

// version is the desired state of an object, and a resource version with which nothing had to be written for it.
type version struct {
	wanted          digest
	resourceVersion string
}

// Forget drops what is known of the objects of an owner.
func (m *Memory) Forget(owner client.ObjectKey) {
	m.lock.Lock()
	defer m.lock.Unlock()
	delete(m.owners, owner)
}

// noteResult notes the result of an apply of one object of an owner, and the version that it made.
func (m *Memory) noteResult(owner client.ObjectKey, object string, r result, current version) {
	if r.applied == r.stored {
		r = result{}
	}
	m.note(owner, object, func(k *known) { k.result, k.current = r, current })
}

// noteCurrent notes the version of one object of an owner with which nothing has to be written.
func (m *Memory) noteCurrent(owner client.ObjectKey, object string, current version) {
	m.note(owner, object, func(k *known) { k.current = current })
}

// note changes what is known of one object of an owner.
func (m *Memory) note(owner client.ObjectKey, object string, change func(*known)) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.owners == nil {
		m.owners = map[client.ObjectKey]map[string]known{}
	}
	if m.owners[owner] == nil {
		m.owners[owner] = map[string]known{}
	}
	k := m.owners[owner][object]
	change(&k)
	m.owners[owner][object] = k
}

// of is what is known of one object of an owner.
func (m *Memory) of(owner client.ObjectKey, object string) known {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.owners[owner][object]
}

// digestOf is the digest of an apply configuration.
func digestOf(config any) (digest, error) {
	raw, err := json.Marshal(config)
	if err != nil {
		return digest{}, fmt.Errorf("encoding an apply configuration: %w", err)
	}
	return sha256.Sum256(raw), nil
}
