package controller

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// handOnRotationRequest writes a request for a new key from the Headscale to the
// Secret, where the API Key Manager looks for it. Each request is handed on once, so
// that a later one that somebody wrote to the Secret itself is not undone.
func (r *HeadscaleReconciler) handOnRotationRequest(ctx context.Context, p *pass) error {
	if status := p.headscale.Status.APIKey; status != nil {
		p.handedOn = status.LastRotationRequest
	}
	request := p.headscale.Annotations[v1beta1.AnnotationRotateRequestedAt]
	if request == "" || request == p.handedOn || p.secret == nil || !ours(p.secret) {
		return nil
	}
	known := p.secret.Annotations
	if known[v1beta1.AnnotationRotateRequestedAt] != request && known[v1beta1.AnnotationRotateHandled] != request {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			// The Secret must still be the one that was looked at.
			"uid":         p.secret.UID,
			"annotations": map[string]string{v1beta1.AnnotationRotateRequestedAt: request},
		}})
		if err != nil {
			return fmt.Errorf("encoding the rotation request: %w", err)
		}
		if err := r.Client.Patch(ctx, p.secret, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldManager)); err != nil {
			return fmt.Errorf("handing the rotation request on to Secret %s: %w", p.secret.Name, err)
		}
	}
	p.handedOn = request
	return nil
}
