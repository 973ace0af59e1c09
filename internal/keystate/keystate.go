package keystate

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// OverdueAfter is how long after its time a rotation counts as overdue. It is more than a
// rotation takes, and less than the minute within which it should be seen.
const OverdueAfter = 30 * time.Second

// State is the state of an API key. Programs read the values in the output of kubectl
// headscale key, so that they are part of its interface.
type State string

// The states of an API key.
const (
	// Valid says that Headscale accepts the key.
	Valid State = "Valid"
	// Overdue says that Headscale accepts the key, and that it should have been rotated.
	Overdue State = "Overdue"
	// Expired says that the key has expired.
	Expired State = "Expired"
	// Missing says that no key is stored.
	Missing State = "Missing"
	// NotOurs says that the Secret does not have the labels of an API key Secret.
	NotOurs State = "NotOurs"
	// Unknown says that nothing is known of the key.
	Unknown State = "Unknown"
)

// Usable reports whether Headscale accepts a key in this state.
func (s State) Usable() bool { return s == Valid || s == Overdue }

// Key is what is known of an API key at some time. A time that is not known is zero.
type Key struct {
	State State
	// Prefix is the public part of the key, as it is written in the cluster.
	Prefix string
	// CreatedAt is when the key was created.
	CreatedAt time.Time
	// Expiration is when the key expires.
	Expiration time.Time
	// Lifetime is for how long the key is valid from its creation to its expiration.
	Lifetime time.Duration
	// NextRotation is when the key is to be replaced; zero for a key that is not managed.
	NextRotation time.Time
	// NextChange is when State becomes another one if nothing is written until then; zero
	// if it stays.
	NextChange time.Time
	// Retiring are the keys that were replaced and that Headscale still accepts.
	Retiring []Retiring
	// PendingSince is when the first key was requested from Headscale of those that did not
	// reach the Secret.
	PendingSince time.Time
	// Unfinished is the oldest step of a rotation that has begun and not ended; nil if
	// there is none.
	Unfinished *Step
}

// Retiring is a key that was replaced and is valid until it is revoked.
type Retiring struct {
	Prefix string
	// RevokedAt is when Headscale is to be told to refuse the key.
	RevokedAt time.Time
}

// FromSecret evaluates the key that a Secret's metadata describes; nil stands for a Secret
// that does not exist.
func FromSecret(spec *v1beta1.APIKeySpec, secret *metav1.PartialObjectMetadata, now time.Time) Key {
	if secret == nil {
		return Key{State: Missing}
	}
	if !v1beta1.IsAPIKeySecret(secret.Labels) {
		return Key{State: NotOurs}
	}
	annotations := secret.Annotations
	key := Key{
		Prefix:     annotations[v1beta1.AnnotationKeyPrefix],
		CreatedAt:  ReadTime(annotations[v1beta1.AnnotationCreatedAt]),
		Expiration: ReadTime(annotations[v1beta1.AnnotationExpiration]),
	}
	key.readLedger(secret)
	key.evaluate(spec, now)
	return key
}

// FromStatus evaluates the key that a Headscale's status describes. It stands in for the
// Secret where that must not be read, and knows nothing of the ledger.
func FromStatus(spec *v1beta1.APIKeySpec, status *v1beta1.APIKeyStatus, now time.Time) Key {
	if status == nil || status.SecretName != spec.EffectiveSecretName() {
		return Key{State: Unknown}
	}
	key := Key{Prefix: status.KeyPrefix}
	if status.Expiration != nil {
		key.Expiration = status.Expiration.UTC()
	}
	key.evaluate(spec, now)
	return key
}

// evaluate sets the state of a key, and what else follows from its times and the spec.
func (k *Key) evaluate(spec *v1beta1.APIKeySpec, now time.Time) {
	if k.Expiration.IsZero() {
		k.State = Missing
		return
	}
	lifetime, err := spec.Lifetime()
	if err == nil {
		k.Lifetime = lifetime.Expiration
	}
	if !k.CreatedAt.IsZero() {
		k.Lifetime = k.Expiration.Sub(k.CreatedAt)
	}
	if err == nil && spec.Managed() {
		k.NextRotation = k.Expiration.Add(-lifetime.RotationBuffer)
	}
	overdue := k.NextRotation.Add(OverdueAfter)
	switch {
	case !now.Before(k.Expiration):
		k.State = Expired
	case k.NextRotation.IsZero():
		k.State, k.NextChange = Valid, k.Expiration
	case !now.Before(overdue):
		k.State, k.NextChange = Overdue, k.Expiration
	case overdue.After(k.Expiration):
		// The buffer is so short that the key expires before it is overdue.
		k.State, k.NextChange = Valid, k.Expiration
	default:
		k.State, k.NextChange = Valid, overdue
	}
}

// ReadTime reads the time of an annotation; zero where there is none.
func ReadTime(text string) time.Time {
	read, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return read.UTC()
}
