package apikey

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// fakeHeadscale is a Headscale in memory, for timelines of months and for failures
// that a real one does not produce on demand.
type fakeHeadscale struct {
	mu    sync.Mutex
	clock func() time.Time
	keys  []fakeKey
	// created counts the keys ever made.
	created int
	// Each is asked before (and lostCreate after) a call; an error is its answer.
	failList, failCreate, failExpire func() error
	lostCreate                       func() error
	newKey                           func() headscale.Key
	// keep, if set, says which expiration is kept of the one asked for.
	keep   func(time.Time) time.Time
	masked bool
	// transport is what it speaks, once it has been called.
	transport headscale.Transport
}

type fakeKey struct {
	headscale.APIKey
	text headscale.Key
}

func newFakeHeadscale(clock func() time.Time) *fakeHeadscale {
	return &fakeHeadscale{clock: clock, masked: true, newKey: func() headscale.Key {
		return headscale.NewKey("hskey-api-" + randomHex(6) + "-" + randomHex(32))
	}}
}

func randomHex(bytes int) string {
	buffer := make([]byte, bytes)
	_, _ = rand.Read(buffer)
	return hex.EncodeToString(buffer)
}

func ask(hook func() error) error {
	if hook == nil {
		return nil
	}
	return hook()
}

func (h *fakeHeadscale) ListAPIKeys(ctx context.Context) ([]headscale.APIKey, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ask(h.failList); err != nil {
		return nil, err
	}
	h.transport = headscale.TransportGRPC
	keys := make([]headscale.APIKey, len(h.keys))
	for i, key := range h.keys {
		keys[i] = key.APIKey
	}
	return keys, ctx.Err()
}

func (h *fakeHeadscale) CreateAPIKey(_ context.Context, expiration time.Time) (headscale.Key, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ask(h.failCreate); err != nil {
		return headscale.Key{}, err
	}
	if h.keep != nil {
		expiration = h.keep(expiration)
	}
	key := h.add(h.newKey(), expiration)
	if err := ask(h.lostCreate); err != nil {
		return headscale.Key{}, err
	}
	return key, nil
}

// add adds a key. While a Manager runs, it is called by set.
func (h *fakeHeadscale) add(key headscale.Key, expiration time.Time) headscale.Key {
	h.created++
	prefix, known := key.Prefix()
	if !known {
		prefix = key.Reveal()[:4]
	}
	h.keys = append(h.keys, fakeKey{text: key, APIKey: headscale.APIKey{
		ID: uint64(h.created), Prefix: prefix, Expiration: expiration, CreatedAt: h.clock(), Masked: h.masked,
	}})
	return key
}

func (h *fakeHeadscale) ExpireAPIKey(_ context.Context, prefix string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ask(h.failExpire); err != nil {
		return err
	}
	i := slices.IndexFunc(h.keys, func(k fakeKey) bool { return k.Prefix == prefix })
	if i < 0 {
		return headscale.ErrNotFound
	}
	h.keys[i].Expiration = h.clock().Add(-123 * time.Nanosecond)
	return nil
}

func (h *fakeHeadscale) spoken() headscale.Transport {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.transport
}

// set changes the fake's behaviour while it is in use.
func (h *fakeHeadscale) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

// accepts reports whether Headscale would let this key in now.
func (h *fakeHeadscale) accepts(text []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.keys, func(k fakeKey) bool {
		return k.text.Reveal() == string(text) && k.Expiration.After(h.clock())
	})
}

// live returns the keys that Headscale honours now.
func (h *fakeHeadscale) live() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var prefixes []string
	for _, key := range h.keys {
		if key.Expiration.After(h.clock()) {
			prefixes = append(prefixes, key.Prefix)
		}
	}
	return prefixes
}

func (h *fakeHeadscale) createdSoFar() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.created
}

// fakeSecrets is the API server's part in memory, with its conflicts and watches.
type fakeSecrets struct {
	mu      sync.Mutex
	secret  *corev1.Secret
	version int
	watches []*fakeWatch
	// requests counts the calls by verb.
	requests map[string]int
	// fail is asked before a call, lost after it; an error is its answer.
	fail, lost func(verb string, secret *corev1.Secret) error
}

type fakeWatch struct {
	*watch.RaceFreeFakeWatcher
}

var secretGroupResource = schema.GroupResource{Resource: "secrets"}

func newFakeSecrets() *fakeSecrets { return &fakeSecrets{requests: map[string]int{}} }

func (s *fakeSecrets) answer(hook func(string, *corev1.Secret) error, verb string, secret *corev1.Secret) error {
	if hook == nil {
		return nil
	}
	return hook(verb, secret)
}

func (s *fakeSecrets) Get(context.Context) (*corev1.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests["get"]++
	if err := s.answer(s.fail, "get", nil); err != nil {
		return nil, err
	}
	if s.secret == nil {
		return nil, apierrors.NewNotFound(secretGroupResource, "test")
	}
	return s.secret.DeepCopy(), nil
}

func (s *fakeSecrets) Create(_ context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests["create"]++
	if err := s.answer(s.fail, "create", secret); err != nil {
		return nil, err
	}
	if s.secret != nil {
		return nil, apierrors.NewAlreadyExists(secretGroupResource, "test")
	}
	stored := s.put(secret, watch.Added)
	return stored, s.answer(s.lost, "create", secret)
}

func (s *fakeSecrets) Update(_ context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests["update"]++
	if err := s.answer(s.fail, "update", secret); err != nil {
		return nil, err
	}
	switch {
	case s.secret == nil:
		return nil, apierrors.NewNotFound(secretGroupResource, "test")
	case s.secret.ResourceVersion != secret.ResourceVersion:
		return nil, apierrors.NewConflict(secretGroupResource, "test", nil)
	}
	stored := s.put(secret, watch.Modified)
	return stored, s.answer(s.lost, "update", secret)
}

func (s *fakeSecrets) Watch(_ context.Context, resourceVersion string) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests["watch"]++
	if err := s.answer(s.fail, "watch", nil); err != nil {
		return nil, err
	}
	w := &fakeWatch{watch.NewRaceFreeFake()}
	if s.secret != nil && resourceVersion != s.secret.ResourceVersion {
		w.Add(s.secret.DeepCopy())
	}
	s.watches = append(s.watches, w)
	return w, nil
}

func (s *fakeSecrets) put(secret *corev1.Secret, event watch.EventType) *corev1.Secret {
	s.version++
	s.secret = secret.DeepCopy()
	s.secret.ResourceVersion = fmt.Sprint(s.version)
	for _, w := range s.watches {
		w.Action(event, s.secret.DeepCopy())
	}
	return s.secret.DeepCopy()
}

// edit changes the Secret as somebody else would; a nil result deletes it.
func (s *fakeSecrets) edit(change func(*corev1.Secret) *corev1.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var present *corev1.Secret
	if s.secret != nil {
		present = s.secret.DeepCopy()
	}
	changed := change(present)
	switch {
	case changed != nil && present == nil:
		s.put(changed, watch.Added)
	case changed != nil:
		s.put(changed, watch.Modified)
	case present != nil:
		s.version++
		s.secret = nil
		for _, w := range s.watches {
			w.Delete(present)
		}
	}
}

func (s *fakeSecrets) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// endWatches does what an API server does every half hour or so.
func (s *fakeSecrets) endWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watches {
		w.Stop()
	}
	s.watches = nil
}

func (s *fakeSecrets) now() *corev1.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secret == nil {
		return nil
	}
	return s.secret.DeepCopy()
}

func (s *fakeSecrets) count(verbs ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := 0
	for _, verb := range verbs {
		total += s.requests[verb]
	}
	return total
}
