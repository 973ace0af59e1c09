package headscale

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// progressDeadline is how long something may be wrong that should come right by itself.
// It is Kubernetes' default of a Deployment's progressDeadlineSeconds.
const progressDeadline = 10 * time.Minute

// availability reports whether Headscale answers, and if not, why.
func availability(s scope, o observed) status.Condition {
	switch {
	case stopped(s.headscale):
		return status.False(v1beta1.ReasonScaledToZero, "Headscale is stopped because spec.replicas is 0; set it to 1 to start it")
	case o.statefulSet == nil:
		return status.False(v1beta1.ReasonProgressing, "The StatefulSet does not exist yet")
	case o.pod != nil:
		return withDeadline(s, o, stateOfHeadscale(o.pod, o.claim, s.now))
	default:
		return stateOfMissingPod(s, o)
	}
}

// How long after a reconcile without a pod the events are read again: no watch reports them.
// Why a pod cannot be made is said soon; that it cannot be for another reason, later. They
// are not read again where the operator may not read them.
const (
	pollEvents       = 5 * time.Second
	pollEventsSlowly = 30 * time.Second
)

// stateOfMissingPod says that there is no pod, which is trouble when it lasts, or at once where
// Kubernetes says why.
func stateOfMissingPod(s scope, o observed) status.Condition {
	missing := status.False(v1beta1.ReasonPodMissing, fmt.Sprintf(
		"There is no pod %[1]s-0; kubectl describe statefulset %[1]s tells why if this lasts", o.statefulSet.Name))
	since, known := lastObserved(s, o.statefulSet)
	switch {
	case !known:
		return status.False(v1beta1.ReasonProgressing, missing.Message)
	case o.failedCreate != "":
		return withDeadline(s, o, status.False(v1beta1.ReasonPodMissing, fmt.Sprintf(
			"There is no pod %[1]s-0, because Kubernetes refuses to create it or its volume claim: %[2]s", o.statefulSet.Name, o.failedCreate)).
			Until(s.now.Add(pollEventsSlowly)))
	}
	missing = status.Tolerate(missing, since, startGrace, s.now)
	again := pollEvents
	if missing.Reason == v1beta1.ReasonPodMissing {
		again = pollEventsSlowly
	}
	if !o.eventsForbidden {
		missing = missing.Until(status.Soonest(missing.ChangesAt, s.now.Add(again)))
	}
	return withDeadline(s, o, missing)
}

// withDeadline lets a condition that should become true by itself count as stalled when it
// has lasted too long. The time begins again with every pod, and what is wrong with an old
// pod says nothing about the one that is to replace it.
func withDeadline(s scope, o observed, available status.Condition) status.Condition {
	since := falseSince(s, v1beta1.ConditionAvailable)
	if o.pod != nil {
		since = status.Latest(since, o.pod.CreationTimestamp.Time)
	}
	if !rollout(o).True {
		available.Stalled = false
		changed, known := lastObserved(s, o.statefulSet)
		if !known {
			return available
		}
		since = status.Latest(since, changed)
	}
	return available.WithDeadline(since.Add(progressDeadline), s.now)
}

// falseSince is since when a condition of the Headscale is false.
func falseSince(s scope, kind string) time.Time {
	return status.Since(s.headscale.Status.Conditions, kind, metav1.ConditionFalse, s.now)
}

// trueSince is since when a condition of the Headscale is true.
func trueSince(s scope, kind string) time.Time {
	return status.Since(s.headscale.Status.Conditions, kind, metav1.ConditionTrue, s.now)
}

// lastObserved is when Kubernetes last had something new to say about the StatefulSet, in its
// present generation: it says so when it creates a pod and when one goes. Where the times are
// stripped from managedFields, it is since when something is in progress. False: it has said
// nothing yet, and a watch will report when it does.
func lastObserved(s scope, live *appsv1.StatefulSet) (time.Time, bool) {
	if live.Status.ObservedGeneration < live.Generation {
		return time.Time{}, false
	}
	var last time.Time
	for _, entry := range live.ManagedFields {
		if entry.Subresource == "status" && entry.Time != nil {
			last = status.Latest(last, entry.Time.Time)
		}
	}
	switch {
	case !last.IsZero():
		return last, true
	case meta.IsStatusConditionTrue(s.headscale.Status.Conditions, v1beta1.ConditionStalled):
		return falseSince(s, v1beta1.ConditionAvailable), true
	default:
		return trueSince(s, v1beta1.ConditionProgressing), true
	}
}

// stopped reports whether the user wants no pod.
func stopped(headscale *v1beta1.Headscale) bool {
	return headscale.Spec.Replicas != nil && *headscale.Spec.Replicas == 0
}

// rollout reports whether the pod that runs is the one that the StatefulSet asks for.
func rollout(o observed) status.Condition {
	switch live := o.statefulSet; {
	case live == nil:
		return status.False(v1beta1.ReasonProgressing, "The StatefulSet does not exist yet")
	case !live.DeletionTimestamp.IsZero():
		return status.False(v1beta1.ReasonProgressing, "Recreating the StatefulSet; the pod keeps running")
	case live.Status.ObservedGeneration < live.Generation || live.Status.UpdatedReplicas < live.Status.Replicas || live.Status.UpdatedReplicas == 0,
		// The StatefulSet and its pod are not seen at the same time.
		o.pod != nil && o.pod.Labels[appsv1.ControllerRevisionHashLabelKey] != live.Status.UpdateRevision:
		return status.False(v1beta1.ReasonProgressing, "The pod is being replaced by one with the current configuration")
	default:
		return status.True(v1beta1.ReasonReady, "")
	}
}
