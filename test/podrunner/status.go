package podrunner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// revisionOf names the version of the StatefulSet's template.
func revisionOf(set *appsv1.StatefulSet) (string, error) {
	template, err := json.Marshal(set.Spec.Template)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(template)
	return set.Name + "-" + hex.EncodeToString(sum[:])[:10], nil
}

// writeStatus writes the status when it has changed.
func (r *Runner) writeStatus(ctx context.Context, set *appsv1.StatefulSet, revision string) error {
	before := set.DeepCopy()
	set.Status = r.status(set, revision)
	if equality.Semantic.DeepEqual(before.Status, set.Status) {
		return nil
	}
	return client.IgnoreNotFound(r.options.Client.Status().Patch(ctx, set, client.MergeFrom(before)))
}

// status is what the StatefulSet controller would write. The current revision
// becomes the update revision when the new pod is ready.
func (r *Runner) status(set *appsv1.StatefulSet, revision string) appsv1.StatefulSetStatus {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	status := appsv1.StatefulSetStatus{
		ObservedGeneration: set.Generation,
		UpdateRevision:     revision,
		CollisionCount:     set.Status.CollisionCount,
		Conditions:         set.Status.Conditions,
	}
	ready := false
	if r.pod != nil {
		status.Replicas = 1
		ready = r.pod.ready()
		if r.pod.revision == revision {
			status.UpdatedReplicas = 1
		}
	}
	if ready {
		status.ReadyReplicas, status.AvailableReplicas = 1, 1
		r.current = r.pod.revision
	}
	if r.current == "" {
		r.current = revision
	}
	if r.pod != nil && r.pod.revision == r.current {
		status.CurrentReplicas = 1
	}
	status.CurrentRevision = r.current
	return status
}
