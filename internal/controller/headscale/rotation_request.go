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

// forwardRotationRequest writes a request for a new key from the Headscale to the
// Secret, where the API Key Manager watches for it. Each request is forwarded once, so
// that a later one that somebody wrote to the Secret itself is not undone.
func (r *Reconciler) forwardRotationRequest(ctx context.Context, s scope, o *observed) error {
	o.forwarded = forwardedRequest(s.headscale)
	request := v1beta1.RotationRequest(s.headscale.Annotations)
	if request == "" || request == o.forwarded || o.secret == nil || !v1beta1.IsAPIKeySecret(o.secret.Labels) {
		return nil
	}
	live := &v1beta1.Headscale{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(s.headscale), live); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return nil
		}
		return fmt.Errorf("reading the Headscale to forward its rotation request: %w", err)
	}
	known := o.secret.Annotations
	if request != forwardedRequest(live) && request != known[v1beta1.AnnotationRotateRequestedAt] && request != known[v1beta1.AnnotationRotateHandled] {
		if err := r.requestRotation(ctx, o.secret, request); err != nil {
			// A Secret that is gone gets the request when it has been created again.
			return client.IgnoreNotFound(err)
		}
	}
	o.forwarded = request
	return nil
}

// forwardedRequest is the last request that was forwarded for a Headscale, or "".
func forwardedRequest(headscale *v1beta1.Headscale) string {
	if headscale.Status.APIKey == nil {
		return ""
	}
	return headscale.Status.APIKey.LastRotationRequest
}

// requestRotation annotates the Secret, which must still be the one that was
// observed.
func (r *Reconciler) requestRotation(ctx context.Context, secret *metav1.PartialObjectMetadata, request string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             secret.UID,
		"resourceVersion": secret.ResourceVersion, // a newer request is not overwritten
		"annotations":     map[string]string{v1beta1.AnnotationRotateRequestedAt: request},
	}})
	if err != nil {
		return fmt.Errorf("encoding the rotation request: %w", err)
	}
	err = r.Client.Patch(ctx, secret, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldManager))
	if err != nil {
		return fmt.Errorf("forwarding the rotation request to Secret %s: %w", secret.Name, err)
	}
	return nil
}

// longRequests are sentences about rotation requests that are ignored because of their length.
func longRequests(s scope, o observed) []string {
	var warnings []string
	note := func(object string, annotations map[string]string) {
		if len(annotations[v1beta1.AnnotationRotateRequestedAt]) > v1beta1.MaxRotationRequest {
			warnings = append(warnings, fmt.Sprintf("the annotation %s of %s has more than %d bytes and is ignored: write less, such as the time",
				v1beta1.AnnotationRotateRequestedAt, object, v1beta1.MaxRotationRequest))
		}
	}
	note("Headscale "+s.headscale.Name, s.headscale.Annotations)
	if o.secret != nil {
		note("Secret "+o.secret.Name, o.secret.Annotations)
	}
	return warnings
}
