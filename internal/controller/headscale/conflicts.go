package headscale

import (
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/kube/status"
)

// maxConflicts is how many reconciles of a Headscale in a row may end with an optimistic-lock
// conflict, a second apart, before that is no race with another writer any more: a webhook or a
// quota may answer so for good.
const maxConflicts = 5

// conflicts counts, for each Headscale, the reconciles in a row that ended with an
// optimistic-lock conflict, alone or beside something else. The zero value is ready for use.
type conflicts struct {
	lock   sync.Mutex
	counts map[client.ObjectKey]int
}

// last counts a reconcile, and reports whether its conflict is one that lasts.
func (c *conflicts) last(headscale client.ObjectKey, failed *status.Failure) bool {
	c.lock.Lock()
	defer c.lock.Unlock()
	if failed == nil || failed.Conflict == "" {
		delete(c.counts, headscale)
		return false
	}
	if c.counts == nil {
		c.counts = map[client.ObjectKey]int{}
	}
	c.counts[headscale]++
	return c.counts[headscale] > maxConflicts
}
