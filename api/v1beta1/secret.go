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

// ComponentIdentity is the value of LabelComponent on a Secret with the private keys of a
// Headscale that has a backup. A Secret without both labels is never written to.
const ComponentIdentity = "identity"

// LabelHeadscale is on what outlives a Headscale and is not owned by it, this Secret and the claim
// of the data volume: the name of the Headscale.
const LabelHeadscale = GroupName + "/headscale"

// Entries of that Secret, each a private key as Headscale writes it to a file.
const (
	// EntryNoiseKey is the key by which devices know their server.
	EntryNoiseKey = "noise_private.key"
	// EntryDERPKey is the key of the embedded DERP server.
	EntryDERPKey = "derp_server_private.key"
)

// AnnotationIdentity is on that Secret: how the keys on the data volume compare with it, as a
// comma-separated list of "<entry>=<IdentityKept or IdentityDiffers>". A key that is not there was
// not found on the volume.
const AnnotationIdentity = GroupName + "/identity"

// What AnnotationIdentity says of a key.
const (
	// IdentityKept is said of a key that the Secret has, too.
	IdentityKept = "Kept"
	// IdentityDiffers is said of a key in place of which the Secret has another one.
	IdentityDiffers = "Differs"
)

// IsIdentitySecret reports whether a Secret with these labels is one in which an API Key Manager
// keeps the private keys of its Headscale.
func IsIdentitySecret(labels map[string]string) bool {
	return labels[LabelManagedBy] == ManagedBy && labels[LabelComponent] == ComponentIdentity
}

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

// AnnotationAdminCertificate is, on the Secret, by which certificate the admin endpoint of the
// API Key Manager is known: the SHA-256 digest of its public key (SubjectPublicKeyInfo, DER) in
// lower-case hexadecimal. It changes with each start of the API Key Manager, and there is none
// where the endpoint is turned off.
const AnnotationAdminCertificate = AnnotationPrefix + "admin-certificate"

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
			if err == nil && isLedgerName(name) && !at.IsZero() && !yield(name, at.UTC()) {
				return
			}
		}
	}
}

// isLedgerName reports whether a name may be one of a ledger: the prefix of a key, or a time.
// Names get into events with commands to copy, and whoever may annotate the Secret writes them.
func isLedgerName(name string) bool {
	return name != "" && len(name) <= MaxKeyPrefix && strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:+", r)
	}) < 0
}
