package instance

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// Snapshot is what a Headscale had when it was last read, with what the operator itself has
// changed since then.
type Snapshot struct {
	lock  sync.RWMutex
	users map[uint64]headscale.User
	// named are the ids of the users of a name: one that Headscale made, and any number that an
	// identity provider made.
	named map[string][]uint64
	// nodes are all nodes; nil while they were not needed.
	nodes []headscale.Node
	// policy is what Headscale has; nil while it was not needed.
	policy *headscale.Policy
	// keys are all pre-auth keys by their ids; nil while they were not needed.
	keys map[uint64]headscale.PreAuthKey
	// marked are the ids of keys by the fraction of a second of their expiration.
	marked map[time.Duration][]uint64
	// changes are those since they were last asked for.
	changes Changes
}

// Changes are what the operator itself has noted in a snapshot since it was read, so that the next one
// does not differ by it.
type Changes struct {
	// Policy is whether Headscale has another policy.
	Policy bool
	// Users are the ids of users that have come or gone.
	Users []uint64
}

// takeChanges returns the changes since they were last asked for.
func (s *Snapshot) takeChanges() Changes {
	s.lock.Lock()
	defer s.lock.Unlock()
	taken := s.changes
	s.changes = Changes{}
	return taken
}

// NewSnapshot returns a snapshot with users.
func NewSnapshot(users ...headscale.User) *Snapshot {
	s := &Snapshot{users: make(map[uint64]headscale.User, len(users)), named: make(map[string][]uint64, len(users))}
	for i := range users {
		s.PutUser(users[i])
	}
	s.changes = Changes{}
	return s
}

// WithNodes is the snapshot with all nodes.
func (s *Snapshot) WithNodes(nodes ...headscale.Node) *Snapshot {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.nodes = slices.Clip(append([]headscale.Node{}, nodes...))
	return s
}

// User returns the user of an id.
func (s *Snapshot) User(id uint64) (headscale.User, bool) {
	s.lock.RLock()
	defer s.lock.RUnlock()
	user, found := s.users[id]
	return user, found
}

// UsersNamed returns the users of a name, in the order of their ids.
func (s *Snapshot) UsersNamed(name string) []headscale.User {
	s.lock.RLock()
	defer s.lock.RUnlock()
	var users []headscale.User
	for _, id := range slices.Sorted(slices.Values(s.named[name])) {
		users = append(users, s.users[id])
	}
	return users
}

// UserCount is how many users there are.
func (s *Snapshot) UserCount() int {
	s.lock.RLock()
	defer s.lock.RUnlock()
	return len(s.users)
}

// NodesOf returns the nodes that are listed under the user of an id.
func (s *Snapshot) NodesOf(id uint64) []headscale.Node {
	s.lock.RLock()
	defer s.lock.RUnlock()
	var nodes []headscale.Node
	for i := range s.nodes {
		if s.nodes[i].UserID == id {
			nodes = append(nodes, s.nodes[i])
		}
	}
	return nodes
}

// TaggedNodes returns the nodes that have tags, and so are listed under no user of their own.
func (s *Snapshot) TaggedNodes() []headscale.Node {
	s.lock.RLock()
	defer s.lock.RUnlock()
	var nodes []headscale.Node
	for i := range s.nodes {
		if len(s.nodes[i].Tags) > 0 {
			nodes = append(nodes, s.nodes[i])
		}
	}
	return nodes
}

// hasNodes reports whether the nodes were read.
func (s *Snapshot) hasNodes() bool {
	s.lock.RLock()
	defer s.lock.RUnlock()
	return s.nodes != nil
}

// Policy returns the policy, which is empty where none was set.
func (s *Snapshot) Policy() headscale.Policy {
	s.lock.RLock()
	defer s.lock.RUnlock()
	if s.policy == nil {
		return headscale.Policy{}
	}
	return *s.policy
}

// PutPolicy notes the policy that Headscale has.
func (s *Snapshot) PutPolicy(policy headscale.Policy) {
	s.lock.Lock()
	defer s.lock.Unlock()
	known := headscale.Policy{} // what Policy has returned
	if s.policy != nil {
		known = *s.policy
	}
	s.changes.Policy = s.changes.Policy || known.Text != policy.Text
	s.policy = &policy
}

// readPolicy reads the policy. None is one without a text.
func (s *Snapshot) readPolicy(ctx context.Context, api API) error {
	policy, err := api.GetPolicy(ctx)
	if err != nil && !errors.Is(err, headscale.ErrNoPolicy) {
		return err
	}
	s.PutPolicy(policy)
	return nil
}

// lookForPolicy reads the policy, if Headscale shows it. One that reads its policy from a file that is not
// there does not, which is a problem of those only that are about the policy.
func (s *Snapshot) lookForPolicy(ctx context.Context, api API) error {
	if err := s.readPolicy(ctx, api); errors.Is(err, headscale.ErrUnavailable) || errors.Is(err, headscale.ErrUnauthorized) {
		return err
	}
	return nil
}

// hasPolicy reports whether the policy was read.
func (s *Snapshot) hasPolicy() bool {
	s.lock.RLock()
	defer s.lock.RUnlock()
	return s.policy != nil
}

// PutUser notes a user that was made or changed.
func (s *Snapshot) PutUser(user headscale.User) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if _, known := s.users[user.ID]; !known {
		s.changes.Users = append(s.changes.Users, user.ID)
	}
	s.dropName(user.ID)
	s.users[user.ID] = user
	s.named[user.Name] = append(s.named[user.Name], user.ID)
}

// DropUser notes that there is no user of an id.
func (s *Snapshot) DropUser(id uint64) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.dropName(id)
	delete(s.users, id)
	s.changes.Users = append(s.changes.Users, id)
}

// dropName forgets under which name a user is.
func (s *Snapshot) dropName(id uint64) {
	before, found := s.users[id]
	if !found {
		return
	}
	s.named[before.Name] = slices.DeleteFunc(s.named[before.Name], func(other uint64) bool { return other == id })
	if len(s.named[before.Name]) == 0 {
		delete(s.named, before.Name)
	}
}

// readNodes reads the nodes.
func (s *Snapshot) readNodes(ctx context.Context, api API) error {
	nodes, err := api.ListNodes(ctx)
	if err != nil {
		return err
	}
	s.WithNodes(nodes...)
	return nil
}

// readKeys reads the pre-auth keys, and the policy unless it was read. A policy that cannot be read
// is none: nothing but a warning depends on it.
func (s *Snapshot) readKeys(ctx context.Context, api API) error {
	if !s.hasPolicy() {
		if err := s.lookForPolicy(ctx, api); err != nil {
			return err
		}
	}
	keys, err := api.ListPreAuthKeys(ctx, s.userIDs())
	if err != nil {
		return err
	}
	s.WithKeys(keys...)
	return nil
}

// WithKeys is the snapshot with all pre-auth keys.
func (s *Snapshot) WithKeys(keys ...headscale.PreAuthKey) *Snapshot {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.keys, s.marked = make(map[uint64]headscale.PreAuthKey, len(keys)), make(map[time.Duration][]uint64, len(keys))
	for i := range keys {
		s.putKey(&keys[i])
	}
	return s
}

// hasKeys reports whether the pre-auth keys were read.
func (s *Snapshot) hasKeys() bool {
	s.lock.RLock()
	defer s.lock.RUnlock()
	return s.keys != nil
}

// userIDs are the ids of all users, in their order.
func (s *Snapshot) userIDs() []uint64 {
	s.lock.RLock()
	defer s.lock.RUnlock()
	return slices.Sorted(maps.Keys(s.users))
}

// Key returns the pre-auth key of an id.
func (s *Snapshot) Key(id uint64) (headscale.PreAuthKey, bool) {
	s.lock.RLock()
	defer s.lock.RUnlock()
	key, found := s.keys[id]
	return key, found
}

// Keys returns all pre-auth keys, in the order of their ids.
func (s *Snapshot) Keys() []headscale.PreAuthKey {
	s.lock.RLock()
	defer s.lock.RUnlock()
	keys := make([]headscale.PreAuthKey, 0, len(s.keys))
	for _, id := range slices.Sorted(maps.Keys(s.keys)) {
		keys = append(keys, s.keys[id])
	}
	return keys
}

// KeysMarked returns the ids of the pre-auth keys whose expiration has a fraction of a second, in
// their order.
func (s *Snapshot) KeysMarked(fraction time.Duration) []uint64 {
	s.lock.RLock()
	defer s.lock.RUnlock()
	return slices.Sorted(slices.Values(s.marked[fraction]))
}

// PutKey notes a pre-auth key that was made or changed.
func (s *Snapshot) PutKey(key headscale.PreAuthKey) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.keys != nil {
		s.putKey(&key)
	}
}

// putKey is PutKey for who holds lock.
func (s *Snapshot) putKey(key *headscale.PreAuthKey) {
	s.dropMark(key.ID)
	s.keys[key.ID] = *key
	s.marked[fractionOf(key)] = append(s.marked[fractionOf(key)], key.ID)
}

// DropKey notes that there is no pre-auth key of an id.
func (s *Snapshot) DropKey(id uint64) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.dropMark(id)
	delete(s.keys, id)
}

// dropMark forgets by which fraction a key is found.
func (s *Snapshot) dropMark(id uint64) {
	before, found := s.keys[id]
	if !found {
		return
	}
	fraction := fractionOf(&before)
	s.marked[fraction] = slices.DeleteFunc(s.marked[fraction], func(other uint64) bool { return other == id })
	if len(s.marked[fraction]) == 0 {
		delete(s.marked, fraction)
	}
}

// fractionOf is the fraction of a second of the expiration of a key; 0: it has none.
func fractionOf(key *headscale.PreAuthKey) time.Duration {
	if key.Expiration == nil {
		return 0
	}
	return time.Duration(key.Expiration.Nanosecond())
}
