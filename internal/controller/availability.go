package controller

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// verdict is the state of one condition.
type verdict struct {
	ok              bool
	reason, message string
}

// availability tells whether Headscale answers, and if not, why. The pod knows best;
// where it cannot be seen, its StatefulSet knows whether it is ready.
func availability(p *pass) verdict {
	switch live := p.statefulSet; {
	case stopped(p.headscale):
		return verdict{false, v1beta1.ReasonScaledToZero, "Headscale is stopped because spec.replicas is 0; set it to 1 to start it"}
	case live == nil:
		return verdict{false, v1beta1.ReasonProgressing, "There is no StatefulSet yet"}
	case p.pod != nil:
		return stateOfHeadscale(p.pod, p.claim)
	case live.Status.ReadyReplicas == 0:
		return verdict{false, v1beta1.ReasonProgressing, fmt.Sprintf(
			"Pod %[1]s-0 is not ready; kubectl describe pod %[1]s-0 and kubectl logs %[1]s-0 -c headscale tell why if this lasts", live.Name)}
	default:
		return verdict{true, v1beta1.ReasonAvailable, fmt.Sprintf("Pod %s-0 is ready", live.Name)}
	}
}

// stopped tells whether the user wants no pod.
func stopped(headscale *v1beta1.Headscale) bool {
	return headscale.Spec.Replicas != nil && *headscale.Spec.Replicas == 0
}

// rollout tells whether the pod that is there is the one that was asked for last.
func rollout(live *appsv1.StatefulSet) verdict {
	switch {
	case live == nil:
		return verdict{false, v1beta1.ReasonProgressing, "There is no StatefulSet yet"}
	case !live.DeletionTimestamp.IsZero():
		return verdict{false, v1beta1.ReasonProgressing, "The StatefulSet is being made anew; the pod goes on running"}
	case live.Status.ObservedGeneration < live.Generation || live.Status.UpdatedReplicas < live.Status.Replicas || live.Status.UpdatedReplicas == 0:
		return verdict{false, v1beta1.ReasonProgressing, "The pod is being replaced by one with the present settings"}
	default:
		return verdict{true, v1beta1.ReasonReady, ""}
	}
}

// progress tells whether something is under way that ends by itself.
func progress(p *pass, parts judgement) verdict {
	failed := parts.failed
	switch {
	case failed != nil && failed.stalled():
		return verdict{false, failed.reason, failed.message}
	case failed != nil:
		return verdict{true, failed.reason, failed.message}
	case stopped(p.headscale) && p.statefulSet != nil && p.statefulSet.Status.Replicas == 0:
		return verdict{false, v1beta1.ReasonScaledToZero, parts.available.message}
	case !parts.rolledOut.ok && !stopped(p.headscale) && parts.available.ok:
		return verdict{true, parts.rolledOut.reason, parts.rolledOut.message}
	case !parts.available.ok:
		return verdict{true, parts.available.reason, parts.available.message}
	case parts.key.reason == v1beta1.ReasonKeyPending:
		return verdict{true, parts.key.reason, parts.key.message}
	default:
		return verdict{false, v1beta1.ReasonComplete, "Nothing is under way"}
	}
}
