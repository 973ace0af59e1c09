package keystate

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// StepKind is what a step of a rotation does.
type StepKind int

// The kinds of steps.
const (
	// Create is a key that was requested from Headscale and did not reach the Secret.
	Create StepKind = iota
	// Request is a rotation that a user requested and that was not executed.
	Request
	// Revoke is a key that was replaced and that Headscale has to be told to refuse.
	Revoke
)

// Step is a step of a rotation that the ledger says has begun and not ended.
type Step struct {
	Kind StepKind
	// Since is when the step began; for Revoke it may be yet to come.
	Since time.Time
	// Name is what the step is about: the value of the annotation for Request, the public
	// part of the key for Revoke, and nothing for Create.
	Name string
}

// readLedger reads what the Secret's annotations say of a rotation that has not ended.
func (k *Key) readLedger(secret *metav1.PartialObjectMetadata) {
	for prefix, at := range v1beta1.LedgerEntries(secret.Annotations[v1beta1.AnnotationRetiring]) {
		k.Retiring = append(k.Retiring, Retiring{Prefix: prefix, RevokedAt: at})
	}
	k.PendingSince = pendingSince(secret.Annotations[v1beta1.AnnotationPending], k.storedAt())
	if !k.PendingSince.IsZero() {
		k.consider(Step{Kind: Create, Since: k.PendingSince})
	}
	request := v1beta1.RotationRequest(secret.Annotations)
	if request != "" && request != secret.Annotations[v1beta1.AnnotationRotateHandled] {
		k.consider(Step{Kind: Request, Since: RequestedSince(secret), Name: request})
	}
	for _, retiring := range k.Retiring {
		k.consider(Step{Kind: Revoke, Since: retiring.RevokedAt, Name: retiring.Prefix})
	}
}

// storedAt is when the stored key was created; zero without a key, whatever else the
// annotations say.
func (k *Key) storedAt() time.Time {
	if k.Expiration.IsZero() {
		return time.Time{}
	}
	return k.CreatedAt
}

// consider takes a step for the oldest one if it is.
func (k *Key) consider(step Step) {
	if !step.Since.IsZero() && (k.Unfinished == nil || step.Since.Before(k.Unfinished.Since)) {
		k.Unfinished = &step
	}
}

// pendingSince is when the first key was requested of those that were requested after one
// was stored; zero if there is none.
func pendingSince(list string, stored time.Time) time.Time {
	var first time.Time
	for _, written := range v1beta1.LedgerEntries(list) {
		// The times of keys are cut to the second.
		if written.After(stored.Add(time.Second)) && (first.IsZero() || written.Before(first)) {
			first = written
		}
	}
	return first
}
