package headscale

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/resources"
)

// labelClaim gives the claim of the data volume the labels by which the cache holds it, and
// takes from it the one by which Argo CD may prune it. The StatefulSet is the Headscale's
// own, or the claim may be somebody else's.
func (r *Reconciler) labelClaim(ctx context.Context, s scope, o *observed) error {
	if o.claim == nil || o.statefulSet == nil || !o.claim.DeletionTimestamp.IsZero() {
		return nil
	}
	labels, annotations := resources.ClaimMetadata(s.headscale, o.claim)
	if labels == nil {
		return nil
	}
	return r.patchClaim(ctx, o, map[string]any{"labels": labels, "annotations": annotations})
}

// patchClaim changes metadata of the claim of the data volume.
func (r *Reconciler) patchClaim(ctx context.Context, o *observed, metadata map[string]any) error {
	metadata["uid"] = o.claim.UID
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return fmt.Errorf("encoding the metadata of claim %s: %w", o.claim.Name, err)
	}
	claim := &corev1.PersistentVolumeClaim{}
	claim.Namespace, claim.Name = o.claim.Namespace, o.claim.Name
	err = r.Client.Patch(ctx, claim, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldManager))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("changing the metadata of claim %s: %w", o.claim.Name, err)
	}
	if err == nil {
		o.claim = claim
	}
	return nil
}
