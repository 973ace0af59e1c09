package apikey

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const (
	// waitInterval is the time between two looks for a Headscale that does not answer on
	// its socket. The socket appears a moment before Headscale answers, so this is what
	// the first key waits for.
	waitInterval = 20 * time.Millisecond
	// absentInterval is the same where there is no socket. The watch on the socket is
	// quicker; this is for a system that cannot say so.
	absentInterval = 100 * time.Millisecond
	// pollInterval is how often Headscale's list of keys is polled between two checks, as
	// Headscale does not notify of a key that somebody expires or deletes, and how often the clock
	// is compared with the time to wake up: a timer alone would be late by as long as the
	// machine slept. With it, such a key is replaced within 30 seconds.
	pollInterval = 25 * time.Second
	// maxRetry bounds the time between two attempts at anything that failed, so that
	// recovery is seen within seconds.
	maxRetry = rotation.MaxRetryDelay
)

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
	Settings rotation.Settings
	Tag      rotation.Tag
	// Owner is the Headscale with which a Secret that is made here is deleted; nil if
	// there is none.
	Owner *Owner
	// SocketPath is Headscale's Unix socket, watched for restarts of Headscale. If
	// it is empty, a restart is noticed at the next check.
	SocketPath string
	// Clock returns the time.
	Clock func() time.Time
	Log   *slog.Logger
	// Observer receives what is done; it may be nil.
	Observer Observer
	// Keyring receives which keys are valid; it may be nil.
	Keyring Keyring
	// AdminCertificate is the value of the Secret's annotation by which the admin endpoint is
	// known, empty if there is no endpoint.
	AdminCertificate string
}

// Manager keeps one valid API key in the Secret. It is a manager.Runnable of
// controller-runtime, and needs nothing of it to run.
type Manager struct {
	Config
	report  *reporter
	store   *secretStore
	rotator rotation.Rotator[headscale.APIKey]
	failing wait.Backoff
	// poll is pollInterval, but in tests of a year.
	poll time.Duration
	// heartbeat is when the Manager last gave a heartbeat.
	heartbeat heartbeat
}

// New returns a Manager. Its settings must be valid.
func New(config Config) *Manager {
	if config.Observer == nil {
		config.Observer = noObserver{}
	}
	if config.Keyring == nil {
		config.Keyring = noKeyring{}
	}
	config.Admin = keyedAdmin{config.Admin, config.Keyring}
	m := &Manager{
		Config: config,
		store: &secretStore{
			secrets: config.Secrets, owner: config.Owner, keyring: config.Keyring, certificate: config.AdminCertificate,
			certifying: rate.NewLimiter(rate.Every(certificateInterval), certificateBurst), clock: config.Clock,
		},
		failing: rotation.NewBackoff(maxRetry),
		poll:    pollInterval,
	}
	m.report = &reporter{
		log: config.Log, observer: config.Observer, keyring: config.Keyring, secrets: m.secrets, certified: m.store.certified, now: m.now,
	}
	m.rotator = rotation.Rotator[headscale.APIKey]{
		Backend: backend{admin: config.Admin, beat: m.beat}, Store: m.store, Observer: m.report,
		Rules: Rules(), Settings: config.Settings, Tag: config.Tag, Clock: config.Clock, State: rotation.NewState(),
	}
	return m
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
		if left <= 0 || left > rotation.CheckInterval {
			return
		}
		m.beat()
		timer := time.NewTimer(min(left, m.poll))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake.socket:
			timer.Stop()
			return
		case version := <-wake.secret:
			timer.Stop()
			if version != m.store.version() {
				return
			}
		case <-timer.C:
			if left > m.poll && !m.upToDate(ctx) {
				return
			}
		}
	}
}

// upToDate polls Headscale's list of keys, and reports whether a check would find nothing
// to do. The Secret is as the last check or the watch left it, so Kubernetes is not asked.
func (m *Manager) upToDate(ctx context.Context) bool {
	upToDate, err := m.rotator.UpToDate(ctx)
	return upToDate && err == nil
}

// check has the rotation do what is to be done, and returns when to check again.
func (m *Manager) check(ctx context.Context) time.Time {
	m.Observer.Began()
	view, decision, err := m.rotator.Converge(ctx)
	m.report.requested(m.store.request())
	if err != nil {
		return m.retry(ctx, err)
	}
	m.failing = rotation.NewBackoff(maxRetry)
	if len(view.Stuck) == 0 {
		m.report.rested(decision, view)
	}
	return decision.Next
}

// retry reports a failure and returns when to try again. Only a look at a Headscale
// that is not there is repeated at once: it costs nobody anything.
func (m *Manager) retry(ctx context.Context, err error) time.Time {
	if ctx.Err() != nil {
		return m.now()
	}
	m.report.Failed(err)
	m.store.invalidate()
	var throttled *rotation.ThrottledError
	var looking *rotation.ObserveError
	away := errors.As(err, &looking) && errors.Is(err, headscale.ErrUnavailable)
	switch {
	case errors.As(err, &throttled):
		return throttled.Until
	case away && errors.Is(err, fs.ErrNotExist):
		return m.now().Add(absentInterval)
	case away:
		return m.now().Add(waitInterval)
	default:
		return m.now().Add(m.failing.Step())
	}
}

// beat gives a heartbeat.
func (m *Manager) beat() { m.heartbeat.beat(m.Clock()) }

// secrets are the texts that no message may contain: all that is in the Secret, and
// the key that is not there yet.
func (m *Manager) secrets() []string {
	texts := m.store.values()
	if unsaved := m.rotator.State.Unsaved(); unsaved != nil {
		texts = append(texts, unsaved.Reveal())
	}
	return texts
}
