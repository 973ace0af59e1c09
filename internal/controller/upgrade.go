package controller

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"

	"infrado.cloud/headscale-operator/internal/resources"
)

// checkUpgrade refuses a version that Headscale could not go to from the one that
// ran last. A first start has none, and neither has one that never became ready.
func (r *HeadscaleReconciler) checkUpgrade(ctx context.Context, p *pass) error {
	from := p.headscale.Status.Version
	if from == "" {
		if err := r.observeStatefulSet(ctx, p); err != nil {
			return err
		}
		// Who ran it did not write its version to the status yet.
		if p.statefulSet != nil && p.statefulSet.Status.ReadyReplicas > 0 {
			from = appliedVersion(p.statefulSet)
		}
	}
	return resources.CheckUpgrade(from, p.headscale.Spec.Version)
}

// appliedVersion is the version of Headscale that a StatefulSet runs.
func appliedVersion(live *appsv1.StatefulSet) string {
	return resources.VersionOf(live.Spec.Template.Labels)
}
