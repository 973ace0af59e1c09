package headscale

import (
	"cmp"
	"context"

	appsv1 "k8s.io/api/apps/v1"

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

// checkUpgrade refuses a version that may not follow on the last one. One that is applied is no
// change, even where the image holds another release than the spec says.
func checkUpgrade(s scope, o observed) error {
	if o.statefulSet != nil && appliedVersion(o.statefulSet) == s.headscale.Spec.Version {
		return nil
	}
	return resources.CheckUpgrade(lastVersion(s, o), s.headscale.Spec.Version)
}

// recordVersion writes the version that runs to the claim of the data volume.
func (r *Reconciler) recordVersion(ctx context.Context, s scope, o observed) error {
	version := runningVersion(s, o)
	if version == "" || o.claim == nil || o.claim.Annotations[resources.AnnotationVersion] == version {
		return nil
	}
	return r.patchClaim(ctx, &o, map[string]any{"annotations": map[string]string{resources.AnnotationVersion: version}})
}

// runningVersion is the version of Headscale that answers, as itself or its pod says, or ""
// where none does or one is being replaced by another.
func runningVersion(s scope, o observed) string {
	if !availability(s, o).True || !rollout(o).True {
		return ""
	}
	return cmp.Or(otherVersion(o), resources.VersionOf(o.pod.Labels))
}

// appliedVersion is the version of Headscale that a StatefulSet runs.
func appliedVersion(live *appsv1.StatefulSet) string {
	return resources.VersionOf(live.Spec.Template.Labels)
}
