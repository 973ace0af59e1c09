package v1beta1

import (
	"iter"
	"strings"
	"time"
)

// The API key Secret is the contract between the API Key Manager, which writes
// it, and everyone who reads it. Its labels:
const (
	// LabelManagedBy marks every object of this operator. Its value there is ManagedBy.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// LabelComponent says what part an object is. Its value on the API key Secret
	// is ComponentAPIKey.
	LabelComponent = "app.kubernetes.io/component"

	// ManagedBy is the value of LabelManagedBy.
	ManagedBy = "headscale-operator"
	// ComponentAPIKey is the value of LabelComponent on an API key Secret. A Secret
	// without both labels is somebody else's and is never written to.
	ComponentAPIKey = "api-key"
)

// SecretDataKey is the entry of the Secret's data that holds the API key as
// Headscale printed it, without a newline.
const SecretDataKey = "api-key"

// AnnotationPrefix begins the name of every annotation on the API key Secret.
const AnnotationPrefix = "api-key.headscale.infrado.cloud/"

// Annotations that describe the key now stored in the Secret.
const (
	// AnnotationExpiration is when the stored key expires (RFC 3339, UTC).
	AnnotationExpiration = AnnotationPrefix + "expiration"
	// AnnotationCreatedAt is when the stored key was created (RFC 3339, UTC).
	AnnotationCreatedAt = AnnotationPrefix + "created-at"
	// AnnotationKeyPrefix is the public part of the stored key, by which Headscale
	// lists and expires it. It is no secret.
	AnnotationKeyPrefix = AnnotationPrefix + "key-prefix"
	// AnnotationKeyDigest is the SHA-256 digest of the stored key, in hexadecimal.
	// It tells a value that somebody else wrote from the one that was stored.
	AnnotationKeyDigest = AnnotationPrefix + "key-digest"
)

// Annotations that are the ledger of a rotation. At rest there are none of them.
const (
	// AnnotationPending lists the keys that may be on their way: keys that
	// Headscale was asked for, or was about to be asked for, and that did not
	// reach the Secret yet. A comma-separated list of "<expiration>@<written>",
	// both RFC 3339, UTC.
	AnnotationPending = AnnotationPrefix + "pending-expiration"
	// AnnotationRetiring lists the keys that were replaced and that Headscale still
	// has to be told to refuse. A comma-separated list of "<prefix>@<not before>",
	// the time RFC 3339, UTC.
	AnnotationRetiring = AnnotationPrefix + "retiring"
)

// Annotations by which a user asks for a new key.
const (
	// AnnotationRotateRequestedAt asks for a rotation now, on the Headscale
	// resource or on the Secret. Any value not handled before asks once; by custom
	// it is the time of the request. A value longer than MaxRotationRequest is ignored.
	AnnotationRotateRequestedAt = AnnotationPrefix + "rotate-requested-at"
	// AnnotationRotateHandled echoes, on the Secret, the last value of
	// AnnotationRotateRequestedAt that was acted upon.
	AnnotationRotateHandled = AnnotationPrefix + "rotate-handled"
)

// MaxRotationRequest is the longest value of AnnotationRotateRequestedAt that counts, in
// bytes. The request is copied to other annotations, which must leave room for a key.
const MaxRotationRequest = 256

// MaxKeyPrefix is the longest public part of a key that a status shows, in bytes. Headscale's
// have some twenty; whoever may change the Secret may write a longer one there.
const MaxKeyPrefix = 64

// RotationRequest is the request for a rotation among some annotations, or "" where there is
// none that counts.
func RotationRequest(annotations map[string]string) string {
	if request := annotations[AnnotationRotateRequestedAt]; len(request) <= MaxRotationRequest {
		return request
	}
	return ""
}

// ShortenRotationRequest cuts a request that is too long to count, so that nobody need keep all
// of it. It stays too long.
func ShortenRotationRequest(annotations map[string]string) {
	if request := annotations[AnnotationRotateRequestedAt]; len(request) > MaxRotationRequest {
		// A slice alone would keep all of it in memory.
		annotations[AnnotationRotateRequestedAt] = strings.Clone(request[:MaxRotationRequest+1])
	}
}

// IsAPIKeySecret reports whether a Secret with these labels is one that an API Key Manager
// writes to.
func IsAPIKeySecret(labels map[string]string) bool {
	return labels[LabelManagedBy] == ManagedBy && labels[LabelComponent] == ComponentAPIKey
}

// What stands between the entries of a ledger's list, and between the two parts of each.
const (
	LedgerSeparator     = ","
	LedgerPairSeparator = "@"
)

// LedgerEntries yields the entries "<name>@<time>" of a ledger's list, with the time in
// UTC. What cannot be read is left out.
func LedgerEntries(list string) iter.Seq2[string, time.Time] {
	return func(yield func(string, time.Time) bool) {
		for entry := range strings.SplitSeq(list, LedgerSeparator) {
			name, written, _ := strings.Cut(strings.TrimSpace(entry), LedgerPairSeparator)
			at, err := time.Parse(time.RFC3339, written)
			if err == nil && name != "" && !at.IsZero() && !yield(name, at.UTC()) {
				return
			}
		}
	}
}
