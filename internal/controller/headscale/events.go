package headscale

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// maxNote is the longest note that the API accepts in an event, in bytes.
const maxNote = 1024

// Recorder takes events.
type Recorder interface {
	// Eventf records what happened to an object: the kind of event, a reason and an
	// action in CamelCase, and a note for people as a format with its arguments.
	Eventf(regarding, related runtime.Object, kind, reason, action, note string, arguments ...any)
}

// occurrence is one thing that users look for.
type occurrence struct {
	warning      bool
	reason, note string
}

// Actions, in the sense of the events API, by which events come about.
const (
	actionReconcile = "Reconcile"
	actionObserve   = "Observe"
)

// alarms are the reasons that are worth a warning when a condition begins to have
// one of them.
var alarms = []string{
	v1beta1.ReasonConflict, v1beta1.ReasonInvalidConfig, v1beta1.ReasonUpgradeRefused,
	v1beta1.ReasonCrashing, v1beta1.ReasonImagePullFailed, v1beta1.ReasonCannotStart, v1beta1.ReasonUnschedulable,
	v1beta1.ReasonVolumePending, v1beta1.ReasonNotAnswering,
	v1beta1.ReasonPodMissing, v1beta1.ReasonPodFailed, v1beta1.ReasonNodeLost,
	v1beta1.ReasonKeyExpired, v1beta1.ReasonKeyOverdue, v1beta1.ReasonManagerFailing, v1beta1.ReasonRotationFailing,
}

// record hands events on.
func (r *HeadscaleReconciler) record(headscale *v1beta1.Headscale, events ...occurrence) {
	for _, e := range events {
		kind, action := corev1.EventTypeNormal, actionObserve
		if e.warning {
			kind = corev1.EventTypeWarning
		}
		if slices.Contains([]string{v1beta1.EventCreated, v1beta1.EventVolumeGrown}, e.reason) {
			action = actionReconcile
		}
		r.Events.Eventf(headscale, nil, kind, e.reason, action, "%s", cut(e.note, maxNote))
	}
}

// occurrences are the events of a change of the status. They are told from what is
// stored, so that each is recorded once, whichever operator sees it.
func occurrences(before, after *v1beta1.HeadscaleStatus) []occurrence {
	events := keyChanges(before.APIKey, after.APIKey)
	var noted []string
	for _, kind := range alarming {
		was, is := reasonOf(before, kind), meta.FindStatusCondition(after.Conditions, kind)
		if is == nil || is.Reason == was || !slices.Contains(alarms, is.Reason) || slices.Contains(noted, is.Reason) {
			continue
		}
		noted = append(noted, is.Reason)
		events = append(events, occurrence{true, is.Reason, is.Message})
	}
	if before.Warning != "" && after.Warning == "" {
		events = append(events, occurrence{false, v1beta1.EventRecovered, fmt.Sprintf("Headscale is running as asked for again, after %s", before.Warning)})
	}
	return events
}

// alarming are the conditions whose reasons may be alarms.
var alarming = []string{v1beta1.ConditionReady, v1beta1.ConditionAvailable, v1beta1.ConditionAPIKeyReady}

// openWarning is the reason of the last warning, until all is well again. What comes in
// between, such as the start of a new pod, does not end it.
func openWarning(status *v1beta1.HeadscaleStatus) string {
	for _, kind := range alarming {
		if reason := reasonOf(status, kind); slices.Contains(alarms, reason) {
			return reason
		}
	}
	if reasonOf(status, v1beta1.ConditionReady) == v1beta1.ReasonReady {
		return ""
	}
	return status.Warning
}

// keyChanges are the events of a change of the API key. A key that is there when the
// operator begins to look at its Secret was not stored now.
func keyChanges(before, after *v1beta1.APIKeyStatus) []occurrence {
	if before == nil {
		return nil
	}
	if after == nil || before.SecretName != after.SecretName {
		if before.KeyPrefix == "" {
			return nil
		}
		return []occurrence{{false, v1beta1.EventSecretLeft, fmt.Sprintf(
			"Secret %s is not looked after any more and stays as it is, with its key: delete it when nobody reads it", before.SecretName)}}
	}
	switch {
	case after.KeyPrefix == "" || after.KeyPrefix == before.KeyPrefix:
		return nil
	case before.KeyPrefix == "":
		return []occurrence{{false, v1beta1.EventKeyStored, fmt.Sprintf("Secret %s holds the API key %s", after.SecretName, describeKey(after))}}
	default:
		return []occurrence{{false, v1beta1.EventKeyRotated, fmt.Sprintf("Secret %s holds the API key %s in place of %s", after.SecretName, describeKey(after), before.KeyPrefix)}}
	}
}

// describeKey names a key by its public part and its end.
func describeKey(key *v1beta1.APIKeyStatus) string {
	if key.Expiration == nil {
		return key.KeyPrefix
	}
	return fmt.Sprintf("%s, valid until %s", key.KeyPrefix, text(key.Expiration.Time))
}

// reasonOf is the reason of a condition, or "".
func reasonOf(status *v1beta1.HeadscaleStatus, kind string) string {
	if condition := meta.FindStatusCondition(status.Conditions, kind); condition != nil {
		return condition.Reason
	}
	return ""
}
