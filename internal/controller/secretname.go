package controller

import (
	"context"
	"fmt"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// checkSecretName refuses a Secret that an older Headscale looks after: two API Key
// Managers would replace each other's keys without end.
func (r *HeadscaleReconciler) checkSecretName(ctx context.Context, p *pass) error {
	if !p.headscale.Spec.APIKey.Managed() {
		return nil
	}
	name := p.headscale.Spec.APIKey.EffectiveSecretName()
	others, err := r.listManagers(ctx, p.headscale.Namespace, name)
	if err != nil {
		return err
	}
	for i := range others {
		if older(&others[i], p.headscale) {
			p.secretTaken = fmt.Sprintf(
				"Secret %s is already looked after for Headscale %s: set spec.api_key.secret_name to another name", name, others[i].Name)
			return &conflictError{message: p.secretTaken}
		}
	}
	return nil
}

// older tells whether a Headscale is another one that was there before. Of two that
// were made in the same second, the one whose name comes first counts as older.
func older(other, headscale *v1beta1.Headscale) bool {
	if other.UID == headscale.UID || !other.DeletionTimestamp.IsZero() {
		return false
	}
	if other.CreationTimestamp.Equal(&headscale.CreationTimestamp) {
		return other.Name < headscale.Name
	}
	return other.CreationTimestamp.Before(&headscale.CreationTimestamp)
}
