package apikey

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// Record is what the Secret says: the key that it holds, and the ledger of a
// rotation that is under way.
type Record struct {
	// Ours is whether the Secret carries our labels. Another's is never written to.
	Ours bool
	// Immutable is whether Kubernetes refuses every change of the Secret's data.
	Immutable bool

	// Key is the key's text, empty if there is none yet.
	Key headscale.Key
	// Prefix and Digest are what we noted about the key when we stored it.
	Prefix, Digest string
	// Expiration and CreatedAt describe the key; zero where missing or unreadable.
	Expiration, CreatedAt time.Time

	// Pending are the keys that may be on their way.
	Pending []PendingKey
	// Retiring are the keys that were replaced and not expired yet.
	Retiring []RetiringKey

	// Requested is the last request for a rotation, Handled the last one acted upon.
	Requested, Handled string
}

// PendingKey is a key that Headscale was asked for, or was about to be asked for.
type PendingKey struct {
	// Expiration is the key's, by which it is found in Headscale's list.
	Expiration time.Time
	// Written is when this mark was made.
	Written time.Time
}

// RetiringKey is a key that was replaced.
type RetiringKey struct {
	// Prefix is the key's, by which Headscale expires it.
	Prefix string
	// NotBefore is when it is to be expired.
	NotBefore time.Time
}

// ReadRecord reads a Secret. What cannot be read of it counts as missing.
func ReadRecord(secret *corev1.Secret) Record {
	notes := secret.Annotations
	return Record{
		Ours:       v1beta1.IsAPIKeySecret(secret.Labels),
		Immutable:  secret.Immutable != nil && *secret.Immutable,
		Key:        headscale.NewKey(string(secret.Data[v1beta1.SecretDataKey])),
		Prefix:     notes[v1beta1.AnnotationKeyPrefix],
		Digest:     notes[v1beta1.AnnotationKeyDigest],
		Expiration: parseTime(notes[v1beta1.AnnotationExpiration]),
		CreatedAt:  parseTime(notes[v1beta1.AnnotationCreatedAt]),
		Pending:    parsePending(notes[v1beta1.AnnotationPending]),
		Retiring:   parseRetiring(notes[v1beta1.AnnotationRetiring]),
		Requested:  notes[v1beta1.AnnotationRotateRequestedAt],
		Handled:    notes[v1beta1.AnnotationRotateHandled],
	}
}

// Onto returns a copy of the Secret that says what the record says. Everything in
// it that is not ours stays.
func (r Record) Onto(secret *corev1.Secret) *corev1.Secret {
	secret = secret.DeepCopy()
	if secret.Labels == nil {
		secret.Labels = map[string]string{}
	}
	secret.Labels[v1beta1.LabelManagedBy] = v1beta1.ManagedBy
	secret.Labels[v1beta1.LabelComponent] = v1beta1.ComponentAPIKey

	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	for name, value := range r.annotations() {
		if value == "" {
			delete(secret.Annotations, name)
		} else {
			secret.Annotations[name] = value
		}
	}

	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	if !r.Key.IsZero() {
		secret.Data[v1beta1.SecretDataKey] = []byte(r.Key.Reveal())
	}
	return secret
}

// saysTheSame reports whether the Secret's annotations are to the letter those
// that Onto would write.
func (r Record) saysTheSame(secret *corev1.Secret) bool {
	return maps.Equal(r.Onto(secret).Annotations, secret.Annotations)
}

func (r Record) annotations() map[string]string {
	return map[string]string{
		v1beta1.AnnotationKeyPrefix:     r.Prefix,
		v1beta1.AnnotationKeyDigest:     r.Digest,
		v1beta1.AnnotationExpiration:    formatTime(r.Expiration),
		v1beta1.AnnotationCreatedAt:     formatTime(r.CreatedAt),
		v1beta1.AnnotationPending:       formatPending(r.Pending),
		v1beta1.AnnotationRetiring:      formatRetiring(r.Retiring),
		v1beta1.AnnotationRotateHandled: r.Handled,
	}
}

// withPending returns the record with one more key on its way.
func (r Record) withPending(mark PendingKey) Record {
	r.Pending = append(slices.Clone(r.Pending), mark)
	return r
}

// withKey returns the record with a new key in it. The key's mark is dropped, and
// the keys that it replaces are noted as retiring.
func (r Record) withKey(made Made, predecessors []string, expireAt time.Time) Record {
	r.Key = made.Key
	r.Prefix = made.Prefix
	r.Digest = digestOf(made.Key)
	r.Expiration = made.Expiration
	r.CreatedAt = made.CreatedAt
	r.Handled = r.Requested
	r.Pending = slices.DeleteFunc(slices.Clone(r.Pending), func(p PendingKey) bool { return p.Expiration.Equal(made.Expiration) })
	r.Retiring = slices.Clone(r.Retiring)
	for _, prefix := range predecessors {
		if !slices.ContainsFunc(r.Retiring, func(k RetiringKey) bool { return k.Prefix == prefix }) {
			r.Retiring = append(r.Retiring, RetiringKey{Prefix: prefix, NotBefore: expireAt})
		}
	}
	return r
}

// digestOf is the note by which a stored key is told from another value. A key
// has at least 190 random bits, so nothing can be learnt from it.
func digestOf(key headscale.Key) string {
	digest := sha256.Sum256([]byte(key.Reveal()))
	return hex.EncodeToString(digest[:])
}

func parsePending(text string) []PendingKey {
	var marks []PendingKey
	for first, written := range v1beta1.LedgerEntries(text) {
		if expiration := parseTime(first); !expiration.IsZero() {
			marks = append(marks, PendingKey{Expiration: expiration, Written: written})
		}
	}
	return marks
}

func formatPending(marks []PendingKey) string {
	texts := make([]string, len(marks))
	for i, mark := range marks {
		texts[i] = formatTime(mark.Expiration) + v1beta1.LedgerPairSeparator + formatTime(mark.Written)
	}
	return strings.Join(texts, v1beta1.LedgerSeparator)
}

func parseRetiring(text string) []RetiringKey {
	var marks []RetiringKey
	for prefix, notBefore := range v1beta1.LedgerEntries(text) {
		marks = append(marks, RetiringKey{Prefix: prefix, NotBefore: notBefore})
	}
	return marks
}

func formatRetiring(marks []RetiringKey) string {
	texts := make([]string, len(marks))
	for i, mark := range marks {
		texts[i] = mark.Prefix + v1beta1.LedgerPairSeparator + formatTime(mark.NotBefore)
	}
	return strings.Join(texts, v1beta1.LedgerSeparator)
}

func parseTime(text string) time.Time {
	instant, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return instant.UTC()
}

func formatTime(instant time.Time) string {
	if instant.IsZero() {
		return ""
	}
	return instant.UTC().Format(time.RFC3339Nano)
}
