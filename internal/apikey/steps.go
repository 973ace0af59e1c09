package apikey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// Step is one of the steps of a rotation, named for logs and for tests that cut it off.
type Step string

// The steps of a rotation, in their order.
const (
	// StepIntend writes into the Secret which key is going to be asked for.
	StepIntend Step = "intend"
	// StepCreate has Headscale make the key.
	StepCreate Step = "create"
	// StepStore writes the key into the Secret, and which key it replaces.
	StepStore Step = "store"
	// StepExpire has Headscale refuse a key.
	StepExpire Step = "expire"
	// StepForget drops the marks of what is finished from the Secret.
	StepForget Step = "forget"
)

// StepRepair is no step of a rotation: it corrects what the Secret says of a good key.
const StepRepair Step = "repair"

// act does what was decided.
func (m *Manager) act(ctx context.Context, view View, d Decision) error {
	switch d.Action {
	case Mint:
		return m.mint(ctx, view, d)
	case Save:
		return m.store(ctx, d)
	case Settle:
		return m.settle(ctx, d)
	case Repair:
		m.report.step(StepRepair, "Correcting the Secret's annotations", d.Reason, "message", d.Message)
		return m.write(ctx, *d.Record)
	default:
		return nil
	}
}

// mint makes a new key and stores it.
func (m *Manager) mint(ctx context.Context, view View, d Decision) error {
	if wait := m.minting.wait(view.Now); wait > 0 {
		return throttledError{until: view.Now.Add(wait), cause: d}
	}
	expiration := view.newExpiration()
	if err := m.intend(ctx, view, expiration); err != nil {
		return err
	}
	m.minting.spend(m.now())
	if err := m.create(ctx, expiration); err != nil {
		return err
	}
	m.asked = d.Reason.scheduled()
	return m.store(ctx, d)
}

// newExpiration picks the expiration of a new key: one that marks it as ours and
// that no other key has.
func (v View) newExpiration() time.Time {
	expiration := v.Tag.Expiration(v.Now.Add(v.Settings.Expiration))
	for v.taken(expiration) {
		expiration = expiration.Add(time.Second)
	}
	return expiration
}

func (v View) taken(expiration time.Time) bool {
	listed := slices.ContainsFunc(v.Keys, func(k headscale.APIKey) bool { return k.Expiration.Equal(expiration) })
	return listed || v.Record != nil &&
		slices.ContainsFunc(v.Record.Pending, func(p PendingKey) bool { return p.Expiration.Equal(expiration) })
}

// intend notes the key in the Secret before it exists. If that is refused, no key
// has been made.
func (m *Manager) intend(ctx context.Context, view View, expiration time.Time) error {
	var record Record
	if view.Record != nil {
		record = *view.Record
	}
	if err := m.write(ctx, record.withPending(PendingKey{Expiration: expiration, Written: view.Now})); err != nil {
		return fmtError("noting a new key in the Secret", err)
	}
	faultpoint(StepIntend)
	return nil
}

// create has Headscale make the key.
func (m *Manager) create(ctx context.Context, expiration time.Time) error {
	key, err := m.Admin.CreateAPIKey(ctx, expiration)
	faultpoint(StepCreate)
	if err != nil {
		return fmtError("creating an API key", err)
	}
	prefix, known := key.Prefix()
	if !known {
		if prefix, err = m.listedPrefix(ctx, expiration); err != nil {
			return err
		}
	}
	m.unsaved = &Made{Key: key, Prefix: prefix, Expiration: expiration, CreatedAt: m.now().Truncate(time.Second)}
	return nil
}

// listedPrefix finds the prefix of a key whose text does not tell it.
func (m *Manager) listedPrefix(ctx context.Context, expiration time.Time) (string, error) {
	keys, err := m.Admin.ListAPIKeys(ctx)
	if err != nil {
		return "", fmtError("looking for the new key in Headscale's list", err)
	}
	for _, key := range keys {
		if key.Expiration.Equal(expiration) {
			return key.Prefix, nil
		}
	}
	return "", errors.New("the API key that Headscale made has an unknown format and is not in Headscale's list")
}

// store puts the key into the Secret.
func (m *Manager) store(ctx context.Context, d Decision) error {
	made := *m.unsaved
	record := ReadRecord(m.current).withKey(made, d.Predecessors, m.now().Add(m.Settings.RevocationDelay))
	if err := m.write(ctx, record); err != nil {
		return fmtError("storing the new key in the Secret", err)
	}
	m.unsaved = nil
	faultpoint(StepStore)
	m.report.step(StepStore, "Stored a new API key", d.Reason, "prefix", made.Prefix, "expiration", formatTime(made.Expiration),
		"replaces", strings.Join(d.Predecessors, ","), "message", d.Message)
	return nil
}

// settle expires keys, and then drops the marks that said so. A key that cannot be
// expired is put off: the next decision leaves it, and its mark, alone for a while.
func (m *Manager) settle(ctx context.Context, d Decision) error {
	m.dropUnsaved(d.Expire)
	var failed error
	for _, prefix := range d.Expire {
		m.pulse.beat(m.Clock())
		failed = errors.Join(failed, m.expire(ctx, prefix, d))
	}
	faultpoint(StepExpire)
	if failed != nil {
		m.report.failure(failed, m.secrets())
		return ctx.Err()
	}
	if d.Record == nil {
		return nil
	}
	if err := m.write(ctx, *d.Record); err != nil {
		return fmtError("noting in the Secret that a key was expired", err)
	}
	faultpoint(StepForget)
	return nil
}

// expire has Headscale refuse a key.
func (m *Manager) expire(ctx context.Context, prefix string, d Decision) error {
	if err := m.Admin.ExpireAPIKey(ctx, prefix); err != nil && !errors.Is(err, headscale.ErrNotFound) {
		m.stuck[prefix] = m.now().Add(m.expiring.grow())
		return fmtError("expiring the API key "+prefix, err)
	}
	m.expired[prefix] = true
	delete(m.stuck, prefix)
	m.expiring.reset()
	m.report.step(StepExpire, "Expired an API key", d.Reason, "prefix", prefix, "message", d.Message)
	return nil
}

// dropUnsaved forgets a key that is to be expired instead of stored. If that fails,
// it is found again by its tag.
func (m *Manager) dropUnsaved(expire []string) {
	if m.unsaved != nil && slices.Contains(expire, m.unsaved.Prefix) {
		m.unsaved = nil
	}
}

// write makes the Secret say what the record says.
func (m *Manager) write(ctx context.Context, record Record) error {
	var secret *corev1.Secret
	var err error
	if m.current == nil {
		secret, err = m.Secrets.Create(ctx, record.Onto(m.newSecret()))
	} else {
		secret, err = m.Secrets.Update(ctx, record.Onto(m.current))
	}
	if err != nil {
		m.written = false
		return ifChanged(err, m.current == nil)
	}
	m.current, m.written = secret, true
	return nil
}

// newSecret is a Secret of ours. Only here it gets its owner: where an admission plugin
// guards owner references, giving one to a Secret that exists needs the right to
// delete it.
func (m *Manager) newSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{OwnerReferences: m.Owner.references()},
		Type:       corev1.SecretTypeOpaque,
	}
}

// throttledError says that a key is needed and must not be made yet.
type throttledError struct {
	until time.Time
	cause Decision
}

func (e throttledError) Error() string {
	return fmt.Sprintf("a new key is needed (%s), and keys were made too often lately; the next one is made at %s",
		e.cause.Message, formatTime(e.until.Truncate(time.Second)))
}
