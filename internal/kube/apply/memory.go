package apply

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Memory remembers with which fields and resource version an object needed no write. That version
// need not be compared again. And an admission policy or webhook may change values that are applied:
// otherwise the same apply would be repeated in every reconcile. What was changed of a new object is applied once more
// when another version of it is seen, and of any after a restart, when Memory is empty. The zero value is ready
// for use.
type Memory struct {
	lock   sync.Mutex
	owners map[client.ObjectKey]map[string]known
}

// digest is a digest of an apply configuration.
type digest [sha256.Size]byte

// known is what is remembered of one object, when it needed no write.
type known struct {
	// wanted is its desired state, and owned are the fields that our field manager had; zero if a
	// comparison found them equal, or if they were not extracted.
	wanted, owned   digest
	resourceVersion string
}

// Forget drops what is known of the objects of an owner.
func (m *Memory) Forget(owner client.ObjectKey) {
	m.lock.Lock()
	defer m.lock.Unlock()
	delete(m.owners, owner)
}

// note notes what is known of one object of an owner.
func (m *Memory) note(owner client.ObjectKey, object string, k known) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.owners == nil {
		m.owners = map[client.ObjectKey]map[string]known{}
	}
	if m.owners[owner] == nil {
		m.owners[owner] = map[string]known{}
	}
	m.owners[owner][object] = k
}

// of is what is known of one object of an owner; zero if that is nothing.
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
