package headscale

import (
	"cmp"
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/internal/resources"
)

// lastVersion is the version of Headscale that ran last with the present database, or "".
// The status of a Headscale that was recreated, or restored from a backup, does not say it;
// then the volume does.
func lastVersion(s scope, o observed) string {
	switch {
	case s.headscale.Status.Version != "":
		return s.headscale.Status.Version
	case o.claim != nil && o.claim.Annotations[resources.AnnotationVersion] != "":
		return o.claim.Annotations[resources.AnnotationVersion]
	case o.statefulSet != nil && o.statefulSet.Status.ReadyReplicas > 0:
		// Who ran it did not write its version down yet.
		return appliedVersion(o.statefulSet)
	default:
		return ""
	}
}

// checkUpgrade refuses a version that may not follow on the last one. An image that is applied
// is no change, even where it holds another release than the spec says.
func checkUpgrade(s scope, o observed) error {
	if o.statefulSet != nil && appliedVersion(o.statefulSet) == s.headscale.Spec.Version && appliedImage(o.statefulSet) == resources.Image(s.headscale) {
		return nil
	}
	return cmp.Or(
		resources.CheckUpgrade(lastVersion(s, o), s.headscale.Spec.Version),
		resources.CheckRollback(startedVersion(o), s.headscale.Spec.Version),
	)
}

// startedVersion is the version of Headscale that was started last with the present database,
// ready or not, or "".
func startedVersion(o observed) string {
	switch {
	case o.pod != nil && wasStarted(o.pod):
		return resources.VersionOf(o.pod.Labels)
	case o.claim != nil:
		return o.claim.Annotations[resources.AnnotationStartedVersion]
	default:
		return ""
	}
}

// neverRan are the reasons for which a container ended whose program was not started.
var neverRan = []string{"ContainerCannotRun", "StartError"}

// wasStarted reports whether Headscale's program was ever started in a pod.
func wasStarted(pod *corev1.Pod) bool {
	container := containerStatus(pod, resources.ContainerHeadscale)
	if container == nil {
		return false
	}
	ended := func(state corev1.ContainerState) bool {
		return state.Terminated != nil && !slices.Contains(neverRan, state.Terminated.Reason)
	}
	return container.State.Running != nil || ended(container.State) || ended(container.LastTerminationState)
}

// recordVersion writes the versions that run and that were started to the claim of the data
// volume.
func (r *Reconciler) recordVersion(ctx context.Context, s scope, o observed) error {
	if o.claim == nil {
		return nil
	}
	annotations := map[string]string{}
	for name, version := range map[string]string{
		resources.AnnotationVersion: runningVersion(s, o), resources.AnnotationStartedVersion: startedVersion(o),
	} {
		if version != "" && o.claim.Annotations[name] != version {
			annotations[name] = version
		}
	}
	if len(annotations) == 0 {
		return nil
	}
	return r.patchClaim(ctx, &o, map[string]any{"annotations": annotations})
}

// runningVersion is the version of Headscale that answers, as itself or its pod says, or ""
// where none does or one is being replaced by another.
func runningVersion(s scope, o observed) string {
	if !availability(s, o).True || !rollout(o).True {
		return ""
	}
	return cmp.Or(otherVersion(s, o), resources.VersionOf(o.pod.Labels))
}

// appliedVersion is the version of Headscale that a StatefulSet runs.
func appliedVersion(live *appsv1.StatefulSet) string {
	return resources.VersionOf(live.Spec.Template.Labels)
}

// appliedImage is the image of Headscale in a StatefulSet, or "".
func appliedImage(live *appsv1.StatefulSet) string {
	for _, container := range live.Spec.Template.Spec.Containers {
		if container.Name == resources.ContainerHeadscale {
			return container.Image
		}
	}
	return ""
}
