package headscale

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/internal/resources"
)

// failingAfter is how long the API Key Manager may take for something that takes it less
// than a second when all is well. It is the pause between two of its attempts at most.
const failingAfter = time.Minute

// stateOfKey judges the API key, and says what of it belongs into the resource's status; nil
// while no key is managed. It is a function of what was observed and of the time alone.
func stateOfKey(s scope, o observed, available status.Condition) (status.Condition, *v1beta1.APIKeyStatus) {
	spec := &s.headscale.Spec.APIKey
	if !spec.Managed() {
		return status.True(v1beta1.ReasonNotManaged,
			"No API key is managed because spec.api_key.auto_manage is false; an existing Secret is not changed"), nil
	}
	name := spec.EffectiveSecretName()
	reported := &v1beta1.APIKeyStatus{SecretName: name, LastRotationRequest: o.forwarded}
	if o.secretTaken != "" {
		return status.False(v1beta1.ReasonConflict, o.secretTaken).Stall(), reported
	}
	key := keystate.FromSecret(spec, o.secret, s.now)
	switch key.State {
	case keystate.NotOurs:
		return status.False(v1beta1.ReasonConflict, fmt.Sprintf(
			"Secret %s exists already and was not created by the API Key Manager, so it is left alone: delete it, or set spec.api_key.secret_name to another name", name)).Stall(), reported
	case keystate.Missing:
		return withKeyDeadline(s, available, stateOfMissingKey(s, o, &key, name, available)), reported
	}
	reported.KeyPrefix = redact.Line(key.Prefix, v1beta1.MaxKeyPrefix)
	reported.Expiration = seconds(key.Expiration)
	if !key.NextRotation.IsZero() {
		reported.NextRotation = seconds(key.NextRotation)
	}
	condition := withTrouble(stateOfStoredKey(s, o, &key, name, available), troubleOfManager(o.pod))
	return withKeyDeadline(s, available, condition), reported
}

// withKeyDeadline lets a key that should come by itself count as one that does not when
// it has not come for too long, while Headscale was there to create it.
func withKeyDeadline(s scope, available, key status.Condition) status.Condition {
	if !available.True {
		return key
	}
	since := status.Latest(falseSince(s, v1beta1.ConditionAPIKeyReady), trueSince(s, v1beta1.ConditionAvailable))
	return key.WithDeadline(since.Add(progressDeadline), s.now)
}

// stateOfMissingKey says why there is no key yet.
func stateOfMissingKey(s scope, o observed, key *keystate.Key, secret string, available status.Condition) status.Condition {
	if trouble := troubleOfManager(o.pod); trouble != "" {
		return status.False(v1beta1.ReasonManagerFailing, fmt.Sprintf("No API key is in Secret %s yet. %s", secret, trouble))
	}
	failing := missingKeyFailsAt(s, o, key, available)
	if failing.IsZero() || s.now.Before(failing) {
		return status.False(v1beta1.ReasonKeyPending, fmt.Sprintf(
			"No API key is in Secret %s yet; %s", secret, managerTells(s, o, "tells why if this lasts"))).Until(failing)
	}
	return status.False(v1beta1.ReasonRotationFailing, fmt.Sprintf(
		"No API key was stored in Secret %s, although Headscale answers and the API Key Manager runs; kubectl logs %s -c apikey-manager tells why",
		secret, resources.PodName(s.headscale)))
}

// managerTells is where to look for why the API Key Manager has not stored a key: into its log, which
// says what, or, while it has none because it was not started, at what it waits for.
func managerTells(s scope, o observed, what string) string {
	pod := resources.PodName(s.headscale)
	if o.pod != nil && hasLog(containerStatus(o.pod, resources.ContainerManager)) {
		return fmt.Sprintf("kubectl logs %s -c %s %s", pod, resources.ContainerManager, what)
	}
	return "the API Key Manager stores a key when it runs in pod " + pod + ", for which the condition Available tells what is missing"
}

// hasLog reports whether a container was started.
func hasLog(container *corev1.ContainerStatus) bool {
	return container != nil && (container.State.Running != nil || container.State.Terminated != nil || container.LastTerminationState.Terminated != nil)
}

// withTrouble adds to what is said of a key that its manager does not run. A key that is
// late or expired has the more telling reason already.
func withTrouble(key status.Condition, trouble string) status.Condition {
	if trouble == "" {
		return key
	}
	key.Message += ". " + trouble
	if key.Reason == v1beta1.ReasonKeyValid || key.Reason == v1beta1.ReasonRotationFailing {
		key.Reason = v1beta1.ReasonManagerFailing
	}
	return key
}

// stateOfStoredKey judges a key by its state, and by what the ledger says of a rotation that
// has not ended.
func stateOfStoredKey(s scope, o observed, key *keystate.Key, secret string, available status.Condition) status.Condition {
	failing, work := unfinished(s, o, key, available)
	logs := managerTells(s, o, "tells why")
	switch {
	case key.State == keystate.Expired:
		return status.False(v1beta1.ReasonKeyExpired, fmt.Sprintf(
			"The API key in Secret %s expired at %s and was not replaced; %s", secret, text(key.Expiration), logs))
	case !failing.IsZero() && !s.now.Before(failing):
		return status.True(v1beta1.ReasonRotationFailing, fmt.Sprintf(
			"%s; the API key in Secret %s expires at %s; %s", work, secret, text(key.Expiration), logs)).Until(key.Expiration)
	case key.State == keystate.Overdue:
		return status.True(v1beta1.ReasonKeyOverdue, fmt.Sprintf(
			"The API key in Secret %s should have been replaced at %s and expires at %s; %s",
			secret, text(key.NextRotation), text(key.Expiration), logs)).Until(status.Soonest(failing, key.NextChange))
	default:
		return status.True(v1beta1.ReasonKeyValid, fmt.Sprintf(
			"The API key in Secret %s is valid until %s", secret, text(key.Expiration))).Until(status.Soonest(failing, key.NextChange))
	}
}

// missingKeyFailsAt is when a key that is missing counts as one that cannot be created; zero:
// not while the API Key Manager does not run.
func missingKeyFailsAt(s scope, o observed, key *keystate.Key, available status.Condition) time.Time {
	running, runs := managerRunsSince(s, o, available)
	if !runs {
		return time.Time{}
	}
	if wasFailing(s) {
		return s.now
	}
	missing := s.now
	if status.ReasonOf(s.headscale.Status.Conditions, v1beta1.ConditionAPIKeyReady) == v1beta1.ReasonKeyPending {
		missing = falseSince(s, v1beta1.ConditionAPIKeyReady)
	}
	return status.Latest(missing, key.PendingSince, running).Add(failingAfter)
}

// unfinished is when what the ledger says of a rotation counts as one that fails, and what
// it says; zero: there is nothing to say, or the API Key Manager does not run.
func unfinished(s scope, o observed, key *keystate.Key, available status.Condition) (time.Time, string) {
	running, runs := managerRunsSince(s, o, available)
	step := key.Unfinished
	switch {
	case !runs || step == nil:
		return time.Time{}, ""
	case wasFailing(s) && !step.Since.After(s.now):
		// The entry of a failed attempt is replaced by that of the next one.
		return s.now, describeStep(step)
	default:
		return status.Latest(step.Since, running).Add(failingAfter), describeStep(step)
	}
}

// describeStep says what has begun and has not ended.
func describeStep(step *keystate.Step) string {
	switch since := text(step.Since); step.Kind {
	case keystate.Create:
		return "A new API key was requested at " + since + " and has not been created"
	case keystate.Request:
		return fmt.Sprintf("The new API key that was requested at %s (%.64q) has not been created", since, step.Name)
	default:
		return "The API key " + step.Name + " was replaced, and Headscale should refuse it since " + since
	}
}

// wasFailing reports whether that was the last that was said of the key.
func wasFailing(s scope) bool {
	return status.ReasonOf(s.headscale.Status.Conditions, v1beta1.ConditionAPIKeyReady) == v1beta1.ReasonRotationFailing
}

// managerRunsSince is since when Headscale answers and the API Key Manager runs.
func managerRunsSince(s scope, o observed, available status.Condition) (time.Time, bool) {
	if !available.True || o.pod == nil {
		return time.Time{}, false
	}
	manager := containerStatus(o.pod, resources.ContainerManager)
	if manager == nil || manager.State.Running == nil {
		return time.Time{}, false
	}
	return status.Latest(trueSince(s, v1beta1.ConditionAvailable), manager.State.Running.StartedAt.Time), true
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
