package headscale

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/kube/status"
)

// checkSecretName refuses a Secret that another Headscale manages: two API Key
// Managers would replace each other's keys without end.
func (r *Reconciler) checkSecretName(ctx context.Context, s scope, o *observed) error {
	key := client.ObjectKeyFromObject(s.headscale)
	if !s.headscale.Spec.APIKey.Managed() {
		r.secrets.release(key, client.ObjectKey{})
		return nil
	}
	secret := client.ObjectKey{Namespace: key.Namespace, Name: s.headscale.Spec.APIKey.EffectiveSecretName()}
	r.secrets.release(key, secret)
	owner, err := r.ownerOf(ctx, s.headscale, secret)
	if err != nil || owner == key.Name {
		return err
	}
	o.secret = nil
	o.secretTaken = fmt.Sprintf(
		"Secret %s is already managed for Headscale %s: set spec.api_key.secret_name to another name", secret.Name, owner)
	if err := r.dropRights(ctx, s.headscale, secret.Name); err != nil {
		return err
	}
	return &status.ConflictError{Message: o.secretTaken}
}
