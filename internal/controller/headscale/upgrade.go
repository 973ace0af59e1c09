package headscale

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/resources"
)

// checkUpgrade refuses a version that Headscale could not go to from the one that
// ran last. A first start has none, and neither has one that never became ready.
func (r *HeadscaleReconciler) checkUpgrade(_ context.Context, p *pass) error {
	return resources.CheckUpgrade(lastVersion(p), p.headscale.Spec.Version)
}

// lastVersion is the version of Headscale that ran last with the present database, or "".
// The status of a Headscale that was made anew, or put back from a backup, does not say it;
// then the volume does.
func lastVersion(p *pass) string {
	switch {
	case p.headscale.Status.Version != "":
		return p.headscale.Status.Version
	case p.claim != nil && p.claim.Annotations[resources.AnnotationVersion] != "":
		return p.claim.Annotations[resources.AnnotationVersion]
	case p.statefulSet != nil && p.statefulSet.Status.ReadyReplicas > 0:
		// Who ran it did not write its version down yet.
		return appliedVersion(p.statefulSet)
	default:
		return ""
	}
}

// noteVersion writes the version that runs to the claim of the data volume.
func (r *HeadscaleReconciler) noteVersion(ctx context.Context, p *pass) error {
	version := runningVersion(p)
	if version == "" || p.claim == nil || p.claim.Annotations[resources.AnnotationVersion] == version {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":         p.claim.UID,
		"annotations": map[string]string{resources.AnnotationVersion: version},
	}})
	if err != nil {
		return fmt.Errorf("encoding the version for claim %s: %w", p.claim.Name, err)
	}
	err = r.Client.Patch(ctx, p.claim.DeepCopy(), client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldManager))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("noting the version on claim %s: %w", p.claim.Name, err)
	}
	return nil
}

// runningVersion is the version of Headscale that answers, as its pod says, or "" where
// none does or one is being replaced by another.
func runningVersion(p *pass) string {
	if !availability(p).ok || !rollout(p).ok {
		return ""
	}
	return resources.VersionOf(p.pod.Labels)
}

// appliedVersion is the version of Headscale that a StatefulSet runs.
func appliedVersion(live *appsv1.StatefulSet) string {
	return resources.VersionOf(live.Spec.Template.Labels)
}
