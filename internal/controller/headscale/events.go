package headscale

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// warningReasons are the reasons that are worth a warning event when a condition begins to
// have one of them.
var warningReasons = []string{
	v1beta1.ReasonConflict, v1beta1.ReasonInvalidConfig, v1beta1.ReasonUpgradeRefused, v1beta1.ReasonPreflightUnknown,
	v1beta1.ReasonCrashing, v1beta1.ReasonImagePullFailed, v1beta1.ReasonCannotStart, v1beta1.ReasonUnschedulable,
	v1beta1.ReasonVolumePending, v1beta1.ReasonNotAnswering, v1beta1.ReasonRestoreFailed,
	v1beta1.ReasonPodMissing, v1beta1.ReasonPodFailed, v1beta1.ReasonNodeLost,
	v1beta1.ReasonKeyExpired, v1beta1.ReasonKeyOverdue, v1beta1.ReasonManagerFailing, v1beta1.ReasonRotationFailing,
}

// warningConditions are the conditions that may have one of these reasons.
var warningConditions = []string{v1beta1.ConditionReady, v1beta1.ConditionAvailable, v1beta1.ConditionAPIKeyReady}

// eventsOf are the events of a change of the status. They follow from what is stored, so
// that each is recorded once, whichever operator sees the change.
func eventsOf(before, after *v1beta1.HeadscaleStatus) []status.Event {
	events := keyChanges(before.APIKey, after.APIKey)
	events = append(events, status.Warnings(before.Conditions, after.Conditions, warningConditions, warningReasons)...)
	events = append(events, backupEvents(before.Conditions, after.Conditions)...)
	if skipped := after.Preflight; skipped != nil && skipped.Outcome == v1beta1.PreflightSkipped &&
		(before.Preflight == nil || before.Preflight.Outcome != v1beta1.PreflightSkipped) {
		events = append(events, status.Event{Warning: true, Reason: v1beta1.EventPreflightSkipped, Note: fmt.Sprintf(
			"Generation %d of the spec is applied without a completed preflight after %v: %s", skipped.Generation, progressDeadline, skipped.Message)})
	}
	if said := warningsIn(after); said != "" && said != warningsIn(before) {
		events = append(events, status.Event{Warning: true, Reason: v1beta1.EventConfigWarning, Note: said})
	}
	if before.Warning != "" && after.Warning == "" {
		events = append(events, status.Event{Reason: v1beta1.EventRecovered,
			Note: "Headscale is running with the desired configuration again, after " + before.Warning})
	}
	return events
}

// warningsIn is what the condition Ready says of what works and should be otherwise, or "".
func warningsIn(reported *v1beta1.HeadscaleStatus) string {
	ready := meta.FindStatusCondition(reported.Conditions, v1beta1.ConditionReady)
	if ready == nil || ready.Status != metav1.ConditionTrue {
		return ""
	}
	_, said, _ := strings.Cut(ready.Message, v1beta1.WarningsIntro)
	return said
}

// openWarning is the reason of the last warning, until all is well again. What comes in
// between, such as the start of a new pod, does not end it.
func openWarning(reported *v1beta1.HeadscaleStatus) string {
	if reason := status.FirstOf(reported.Conditions, warningConditions, warningReasons); reason != "" {
		return reason
	}
	if status.ReasonOf(reported.Conditions, v1beta1.ConditionReady) == v1beta1.ReasonReady {
		return ""
	}
	return reported.Warning
}

// keyChanges are the events of a change of the API key. A key that the operator finds when
// it first reads the Secret was not stored now.
func keyChanges(before, after *v1beta1.APIKeyStatus) []status.Event {
	if before == nil {
		return nil
	}
	if after == nil || before.SecretName != after.SecretName {
		if before.KeyPrefix == "" {
			return nil
		}
		return []status.Event{{Reason: v1beta1.EventSecretLeft, Note: fmt.Sprintf(
			"Secret %s is no longer managed; it is not changed, and its key stays valid: delete it when nothing reads it", before.SecretName)}}
	}
	switch {
	case after.KeyPrefix == "" || after.KeyPrefix == before.KeyPrefix:
		return nil
	case before.KeyPrefix == "":
		return []status.Event{{Reason: v1beta1.EventKeyStored, Note: fmt.Sprintf("Secret %s holds the API key %s", after.SecretName, describeKey(after))}}
	default:
		return []status.Event{{Reason: v1beta1.EventKeyRotated, Note: fmt.Sprintf("Secret %s holds the API key %s in place of %s", after.SecretName, describeKey(after), before.KeyPrefix)}}
	}
}

// describeKey names a key by its prefix and its expiration.
func describeKey(key *v1beta1.APIKeyStatus) string {
	if key.Expiration == nil {
		return key.KeyPrefix
	}
	return fmt.Sprintf("%s, valid until %s", key.KeyPrefix, text(key.Expiration.Time))
}

// withUnexpired adds to the event about a Secret that is no longer managed which keys its
// ledger has that nothing is going to expire: those wait for the end of a revocation_delay,
// or were on their way.
func (r *Reconciler) withUnexpired(ctx context.Context, before *v1beta1.Headscale, events []status.Event) []status.Event {
	for i := range events {
		if events[i].Reason != v1beta1.EventSecretLeft {
			continue
		}
		// What the status says of it may come from the API server, before the cache has it.
		secret, err := r.findSecret(ctx, before.Namespace, before.Status.APIKey.SecretName)
		if err != nil {
			log.FromContext(ctx).Error(err, "Cannot say which keys of the Secret that is no longer managed are still valid")
			continue
		}
		events[i].Note += unexpired(secret)
	}
	return events
}

// unexpired says which keys besides the stored one Headscale still accepts, and what to do
// about them; "" if there is none.
func unexpired(secret *metav1.PartialObjectMetadata) string {
	if secret == nil {
		return ""
	}
	var note strings.Builder
	for prefix := range v1beta1.LedgerEntries(secret.Annotations[v1beta1.AnnotationRetiring]) {
		fmt.Fprintf(&note, "; key %[1]s was replaced and is valid until its own expiration, unless you expire it: headscale apikeys expire --prefix %[1]s", prefix)
	}
	for expiration := range v1beta1.LedgerEntries(secret.Annotations[v1beta1.AnnotationPending]) {
		fmt.Fprintf(&note, "; a key was being created: if headscale apikeys list shows one that expires at %s, expire it", expiration)
	}
	return note.String()
}
