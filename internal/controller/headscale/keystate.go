package headscale

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// overdueAfter is how long after its time a rotation counts as overdue. It is more
// than a rotation takes, and less than the minute within which it should be seen.
const overdueAfter = 30 * time.Second

// keyState is what the Secret's metadata says of the API key at some time.
type keyState struct {
	state
	// status is for the resource's status; nil while no key is managed.
	status *v1beta1.APIKeyStatus
}

// stateOfKey judges the API key. It is a function of the resource with its status, the
// pod, the Secret's metadata and the time alone.
func stateOfKey(p *pass, available state) keyState {
	key := &p.headscale.Spec.APIKey
	if !key.Managed() {
		return keyState{state: state{verdict: verdict{true, v1beta1.ReasonNotManaged,
			"No API key is managed because spec.api_key.auto_manage is false; a Secret from before stays as it is"}}}
	}
	name := key.EffectiveSecretName()
	status := &v1beta1.APIKeyStatus{SecretName: name, LastRotationRequest: p.handedOn}
	if p.secretTaken != "" {
		return keyState{status: status, state: state{helpless: true, verdict: verdict{false, v1beta1.ReasonConflict, p.secretTaken}}}
	}
	if p.secret != nil && !v1beta1.IsAPIKeySecret(p.secret.Labels) {
		return keyState{status: status, state: state{helpless: true, verdict: verdict{false, v1beta1.ReasonConflict, fmt.Sprintf(
			"Secret %s exists already and was not made by the API Key Manager, so it is left alone: delete it, or set spec.api_key.secret_name to another name", name)}}}
	}
	expiration, stored := storedExpiration(p.secret)
	if !stored {
		return keyState{status: status, state: withKeyDeadline(p, available, stateOfMissingKey(p, name, available))}
	}
	status.KeyPrefix = p.secret.Annotations[v1beta1.AnnotationKeyPrefix]
	status.Expiration = seconds(expiration)
	var due time.Time
	if lifetime, err := key.Lifetime(); err == nil {
		due = expiration.Add(-lifetime.RotationBuffer)
		status.NextRotation = seconds(due)
	}
	state := stateOfStoredKey(p, name, due, expiration, available)
	state.verdict = withTrouble(state.verdict, troubleOfManager(p.pod))
	return keyState{status: status, state: withKeyDeadline(p, available, state)}
}

// withKeyDeadline lets a key that should come by itself count as one that does not when
// it has not come for too long, while Headscale was there to make it.
func withKeyDeadline(p *pass, available, key state) state {
	if !available.ok {
		return key
	}
	since := latest(falseSince(p, v1beta1.ConditionAPIKeyReady), trueSince(p, v1beta1.ConditionAvailable))
	return key.until(since.Add(progressDeadline), p.now)
}

// stateOfMissingKey says why there is no key yet.
func stateOfMissingKey(p *pass, secret string, available state) state {
	if trouble := troubleOfManager(p.pod); trouble != "" {
		return state{verdict: verdict{false, v1beta1.ReasonManagerFailing, fmt.Sprintf("No API key is in Secret %s yet. %s", secret, trouble)}}
	}
	pending := verdict{false, v1beta1.ReasonKeyPending, fmt.Sprintf(
		"No API key is in Secret %s yet; kubectl logs %s -c apikey-manager tells why if this lasts", secret, resources.PodName(p.headscale))}
	failing := keyIsLate(p, available)
	if failing.IsZero() || p.now.Before(failing) {
		return state{verdict: pending, changesAt: failing}
	}
	return state{verdict: verdict{false, v1beta1.ReasonRotationFailing, fmt.Sprintf(
		"No API key has come to Secret %s, although Headscale answers and the API Key Manager runs; kubectl logs %s -c apikey-manager tells why",
		secret, resources.PodName(p.headscale))}}
}

// withTrouble adds to what is said of a key that nobody looks after it. A key that is
// late or expired has the more telling reason already.
func withTrouble(state verdict, trouble string) verdict {
	if trouble == "" {
		return state
	}
	state.message += ". " + trouble
	if state.reason == v1beta1.ReasonKeyValid || state.reason == v1beta1.ReasonRotationFailing {
		state.reason = v1beta1.ReasonManagerFailing
	}
	return state
}

// stateOfStoredKey judges a key by the times at which it should be replaced and at
// which it expires, and by what the ledger says of work that is not done.
func stateOfStoredKey(p *pass, secret string, due, expiration time.Time, available state) state {
	overdue := due.Add(overdueAfter)
	failing, work := unfinished(p, available)
	logs := fmt.Sprintf("kubectl logs %s -c apikey-manager tells why", resources.PodName(p.headscale))
	switch {
	case !p.now.Before(expiration):
		return state{verdict: verdict{false, v1beta1.ReasonKeyExpired, fmt.Sprintf(
			"The API key in Secret %s expired at %s and was not replaced; %s", secret, text(expiration), logs)}}
	case !failing.IsZero() && !p.now.Before(failing):
		return state{changesAt: expiration, verdict: verdict{true, v1beta1.ReasonRotationFailing, fmt.Sprintf(
			"%s; the API key in Secret %s expires at %s; %s", work, secret, text(expiration), logs)}}
	case !p.now.Before(overdue):
		return state{changesAt: soonest(failing, expiration), verdict: verdict{true, v1beta1.ReasonKeyOverdue, fmt.Sprintf(
			"The API key in Secret %s should have been replaced at %s and expires at %s; %s", secret, text(due), text(expiration), logs)}}
	default:
		return state{changesAt: soonest(failing, overdue, expiration), verdict: verdict{true, v1beta1.ReasonKeyValid, fmt.Sprintf(
			"The API key in Secret %s is valid until %s", secret, text(expiration))}}
	}
}

// storedExpiration reads when the stored key expires. A Secret without a readable
// time has no key yet.
func storedExpiration(secret *metav1.PartialObjectMetadata) (time.Time, bool) {
	if secret == nil {
		return time.Time{}, false
	}
	expiration, err := time.Parse(time.RFC3339, secret.Annotations[v1beta1.AnnotationExpiration])
	return expiration, err == nil
}

// seconds is a time as the API stores it, without fractions of a second.
func seconds(t time.Time) *metav1.Time {
	whole := metav1.NewTime(t.Truncate(time.Second))
	return &whole
}

// text is a time for people.
func text(t time.Time) string {
	return t.UTC().Format(time.RFC3339)
}
