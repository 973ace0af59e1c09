package headscale

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// handOnRotationRequest writes a request for a new key from the Headscale to the
// Secret, where the API Key Manager looks for it. Each request is handed on once, so
// that a later one that somebody wrote to the Secret itself is not undone.
func (r *HeadscaleReconciler) handOnRotationRequest(ctx context.Context, p *pass) error {
	p.handedOn = handedOn(p.headscale)
	request := p.headscale.Annotations[v1beta1.AnnotationRotateRequestedAt]
	if request == "" || request == p.handedOn || p.secret == nil || !v1beta1.IsAPIKeySecret(p.secret.Labels) {
		return nil
	}
	live := &v1beta1.Headscale{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(p.headscale), live); err != nil {
		return wrapUnlessGone(err, "reading the Headscale to hand on its rotation request")
	}
	known := p.secret.Annotations
	if request != handedOn(live) && request != known[v1beta1.AnnotationRotateRequestedAt] && request != known[v1beta1.AnnotationRotateHandled] {
		if err := r.requestRotation(ctx, p.secret, request); err != nil {
			// A Secret that is gone gets the request when it has been made again.
			return client.IgnoreNotFound(err)
		}
	}
	p.handedOn = request
	return nil
}

// handedOn is the last request that was handed on for a Headscale, or "".
func handedOn(headscale *v1beta1.Headscale) string {
	if headscale.Status.APIKey == nil {
		return ""
	}
	return headscale.Status.APIKey.LastRotationRequest
}

// requestRotation annotates the Secret, which must still be the one that was looked
// at.
func (r *HeadscaleReconciler) requestRotation(ctx context.Context, secret *metav1.PartialObjectMetadata, request string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":         secret.UID,
		"annotations": map[string]string{v1beta1.AnnotationRotateRequestedAt: request},
	}})
	if err != nil {
		return fmt.Errorf("encoding the rotation request: %w", err)
	}
	err = r.Client.Patch(ctx, secret, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldManager))
	if err != nil {
		return fmt.Errorf("handing the rotation request on to Secret %s: %w", secret.Name, err)
	}
	return nil
}
