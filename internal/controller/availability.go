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

// availability tells whether Headscale's pod is ready.
func availability(headscale *v1beta1.Headscale, live *appsv1.StatefulSet) verdict {
	switch {
	case headscale.Spec.Replicas != nil && *headscale.Spec.Replicas == 0:
		return verdict{false, v1beta1.ReasonScaledToZero, "Headscale is stopped because spec.replicas is 0; set it to 1 to start it"}
	case live == nil:
		return verdict{false, v1beta1.ReasonProgressing, "There is no StatefulSet yet"}
	case live.Status.ReadyReplicas == 0:
		return verdict{false, v1beta1.ReasonProgressing, fmt.Sprintf(
			"Pod %[1]s-0 is not ready; kubectl describe pod %[1]s-0 and kubectl logs %[1]s-0 -c headscale tell why if this lasts", live.Name)}
	default:
		return verdict{true, v1beta1.ReasonAvailable, fmt.Sprintf("Pod %s-0 is ready", live.Name)}
	}
}

// rollout tells whether the pod that is ready is the one that was asked for last.
func rollout(live *appsv1.StatefulSet) verdict {
	if live == nil || live.Status.ObservedGeneration < live.Generation || live.Status.UpdatedReplicas < live.Status.Replicas || live.Status.UpdatedReplicas == 0 {
		return verdict{false, v1beta1.ReasonProgressing, "The pod is being replaced by one with the present settings"}
	}
	return verdict{true, v1beta1.ReasonReady, ""}
}
