package apikey

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"

	"infrado.cloud/headscale-operator/internal/headscale"
)

const (
	// waitInterval is the time between two looks for a Headscale that does not answer on
	// its socket. The socket appears a moment before Headscale answers, so this is what
	// the first key waits for.
	waitInterval = 20 * time.Millisecond
	// absentInterval is the same where there is no socket. The watch on the socket is
	// quicker; this is for a system that cannot tell.
	absentInterval = 100 * time.Millisecond
	// clockInterval is how often the clock is compared with the time to wake up. A
	// timer alone would be late by as long as the machine slept.
	clockInterval = 30 * time.Second
	// maxRounds bounds the decisions taken in one go. A rotation takes three.
	maxRounds = 6
)

// Admin is the part of Headscale's admin API that the Manager needs.
type Admin interface {
	// ListAPIKeys returns all keys that Headscale knows, expired ones too.
	ListAPIKeys(ctx context.Context) ([]headscale.APIKey, error)
	// CreateAPIKey makes a key that expires at the given instant.
	CreateAPIKey(ctx context.Context, expiration time.Time) (headscale.Key, error)
	// ExpireAPIKey makes Headscale refuse a key from now on.
	ExpireAPIKey(ctx context.Context, prefix string) error
}

// Secrets is access to the one Secret that holds the key. Its errors are those of
// the Kubernetes API.
type Secrets interface {
	// Get returns the Secret, or a NotFound error.
	Get(ctx context.Context) (*corev1.Secret, error)
	// Create makes the Secret; its namespace and name are filled in.
	Create(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error)
	// Update writes the Secret if it still has the resource version that it was read with.
	Update(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error)
	// Watch reports changes of the Secret since a resource version; since its present
	// state if that is empty.
	Watch(ctx context.Context, resourceVersion string) (watch.Interface, error)
}

// Config is what a Manager is made of.
type Config struct {
	Admin    Admin
	Secrets  Secrets
	Settings Settings
	Tag      Tag
	// Owner is the Headscale with which a Secret that is made here is deleted; nil if
	// there is none.
	Owner *Owner
	// SocketPath is Headscale's Unix socket, watched for restarts of Headscale. If
	// it is empty, a restart is noticed at the next check.
	SocketPath string
	// Clock returns the time.
	Clock func() time.Time
	Log   *slog.Logger
	// Observer is told what is done; nil: nobody is.
	Observer Observer
}

// Manager keeps one valid API key in the Secret. It is a manager.Runnable of
// controller-runtime, and needs nothing of it to run.
type Manager struct {
	Config
	report  reporter
	minting mintLimiter
	failing backoff
	// expiring is the delay before a key that could not be expired is tried again.
	expiring backoff

	// current is the Secret as last read or written, nil if there is none. It is
	// read again unless it has just been written.
	current *corev1.Secret
	written bool
	// unsaved is a key that was made and is not in the Secret yet.
	unsaved *Made
	// asked is whether the last key was made because it was meant to be. It counts
	// as that once it is found good.
	asked bool
	// pulse is when the Manager was last seen to get on.
	pulse pulse
	// expired and stuck are the keys, by prefix, that were expired, and those that
	// could not be and when to try again.
	expired map[string]bool
	stuck   map[string]time.Time
}

// New returns a Manager. Its settings must be valid.
func New(config Config) *Manager {
	if config.Observer == nil {
		config.Observer = nobody{}
	}
	return &Manager{
		Config:  config,
		report:  reporter{log: config.Log, observer: config.Observer},
		minting: mintLimiter{backoff: backoff{most: maxBackoff, jitter: rand.Float64}},
		failing: backoff{most: maxRetry, jitter: rand.Float64}, expiring: backoff{most: maxRetry, jitter: rand.Float64},
		expired: map[string]bool{}, stuck: map[string]time.Time{},
	}
}

// Start runs the Manager until the context ends. Whatever fails outside, it waits
// and tries again; it always returns nil.
func (m *Manager) Start(ctx context.Context) error {
	wake := newWaker()
	var watchers sync.WaitGroup
	watchers.Go(func() { watchSecret(ctx, m.Secrets, wake, m.Log) })
	if m.SocketPath != "" {
		watchers.Go(func() { watchSocket(ctx, m.SocketPath, wake, m.Log) })
	}
	defer watchers.Wait()

	for ctx.Err() == nil {
		next := m.check(ctx)
		m.sleep(ctx, next, wake)
	}
	return nil
}

// now is the time by the wall clock: a sleeping machine's monotonic clock stands still.
func (m *Manager) now() time.Time { return m.Clock().Round(0) }

// sleep waits for the time to come, or for something to happen that we do not
// know of yet. No time is further away than a check, unless the clock was set back.
func (m *Manager) sleep(ctx context.Context, until time.Time, wake *waker) {
	for {
		left := until.Sub(m.now())
		if left <= 0 || left > CheckInterval {
			return
		}
		m.pulse.beat(m.Clock())
		timer := time.NewTimer(min(left, clockInterval))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake.socket:
			timer.Stop()
			return
		case version := <-wake.secret:
			timer.Stop()
			if version != m.version() {
				return
			}
		case <-timer.C:
		}
	}
}

// version is the resource version of the Secret as we know it, empty if there is none.
func (m *Manager) version() string {
	if m.current == nil {
		return ""
	}
	return m.current.ResourceVersion
}

// check looks, decides and acts until nothing is left to do, and returns when to
// check again.
func (m *Manager) check(ctx context.Context) time.Time {
	m.Observer.Began()
	for range maxRounds {
		m.pulse.beat(m.Clock())
		view, err := m.look(ctx)
		if err != nil {
			return m.retry(ctx, err, true)
		}
		decision := Decide(view)
		m.Observer.Decided(view, decision)
		switch decision.Action {
		case None, Blocked:
			return m.rest(view, decision)
		}
		if err := m.act(ctx, view, decision); err != nil && !errors.Is(err, errChanged) {
			return m.retry(ctx, err, false)
		}
	}
	return m.retry(ctx, errUnsettled, false)
}

// rest notes that nothing is left to do now, and returns when to check again.
func (m *Manager) rest(view View, decision Decision) time.Time {
	if decision.Action == None {
		if m.asked {
			m.minting.forgive(view.Now)
		}
		m.asked = false
		m.minting.rest(view.Now)
	}
	m.failing.reset()
	if len(m.stuck) == 0 {
		m.report.decision(decision, view)
	}
	return decision.Next
}

// retry reports a failure and returns when to try again. Only a look at a Headscale
// that is not there is repeated at once: it costs nobody anything.
func (m *Manager) retry(ctx context.Context, err error, looking bool) time.Time {
	if ctx.Err() != nil {
		return m.now()
	}
	m.report.failure(err, m.secrets())
	m.written = false
	var throttled throttledError
	switch {
	case errors.As(err, &throttled):
		return throttled.until
	case looking && errors.Is(err, headscale.ErrUnavailable) && errors.Is(err, fs.ErrNotExist):
		return m.now().Add(absentInterval)
	case looking && errors.Is(err, headscale.ErrUnavailable):
		return m.now().Add(waitInterval)
	default:
		return m.now().Add(m.failing.grow())
	}
}

// look gathers all that a decision depends on.
func (m *Manager) look(ctx context.Context) (View, error) {
	keys, err := m.Admin.ListAPIKeys(ctx)
	if err != nil {
		return View{}, fmtError("listing Headscale's API keys", err)
	}
	if err := m.read(ctx); err != nil {
		return View{}, fmtError("reading the Secret", err)
	}
	view := View{Now: m.now(), Keys: keys, Tag: m.Tag, Settings: m.Settings, Expired: m.expired, Stuck: m.stuck}
	if m.current != nil {
		record := ReadRecord(m.current)
		view.Record, view.Regular = &record, record.saysTheSame(m.current)
		if m.unsaved != nil && record.intact() && record.Key == m.unsaved.Key {
			m.unsaved = nil // It was stored, and only the answer was lost.
		}
	}
	if m.unsaved != nil && view.find(m.unsaved.Prefix) == nil {
		m.unsaved = nil // Headscale lost it, with its database.
	}
	view.Unsaved = m.unsaved
	m.forget(view)
	return view, nil
}

// forget drops what is noted of keys that are settled, or that Headscale does not
// know any more.
func (m *Manager) forget(view View) {
	maps.DeleteFunc(m.expired, func(prefix string, _ bool) bool { return view.find(prefix) == nil })
	maps.DeleteFunc(m.stuck, func(prefix string, _ time.Time) bool {
		key := view.find(prefix)
		return key == nil || view.refused(*key)
	})
}

// secrets are the texts that no message may contain: all that is in the Secret, and
// the key that is not there yet.
func (m *Manager) secrets() []string {
	var texts []string
	if m.current != nil {
		for _, value := range m.current.Data {
			texts = append(texts, string(value))
		}
	}
	if m.unsaved != nil {
		texts = append(texts, m.unsaved.Key.Reveal())
	}
	return texts
}

// read reads the Secret, unless we have just written it.
func (m *Manager) read(ctx context.Context) error {
	if m.written {
		m.written = false
		return nil
	}
	secret, err := m.Secrets.Get(ctx)
	switch {
	case apierrors.IsNotFound(err):
		m.current = nil
	case err != nil:
		return err
	default:
		m.current = secret
	}
	return nil
}
