package plugin

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
)

// stage is the progress of a request for a new key.
type stage int

// The stages, in the order in which they are reached.
const (
	// stageAsked: the annotation is on the Headscale.
	stageAsked stage = iota
	// stageForwarded: the operator wrote the request to the Secret.
	stageForwarded
	// stageStored: the API Key Manager stored the new key.
	stageStored
	// stageDone: the old key is revoked, or will be at a time that is known.
	stageDone
)

// rotation is a request for a new key.
type rotation struct {
	key types.NamespacedName
	uid types.UID
	// request is the value of the annotation that asks.
	request string
	// oldPrefix is the public part of the key to be replaced, or "".
	oldPrefix string
}

// newRotation is a request that is about to be made.
func newRotation(headscale *v1beta1.Headscale, secret secretView, request string) *rotation {
	return &rotation{
		key: types.NamespacedName{Namespace: headscale.Namespace, Name: headscale.Name}, uid: headscale.UID,
		request: request, oldPrefix: prefixOf(headscale, secret),
	}
}

// prefixOf is the public part of the stored key, or "".
func prefixOf(headscale *v1beta1.Headscale, secret secretView) string {
	switch {
	case secret.metadata != nil:
		return oneLine(secret.metadata.Annotations[v1beta1.AnnotationKeyPrefix])
	case secret.forbidden && headscale.Status.APIKey != nil:
		return oneLine(headscale.Status.APIKey.KeyPrefix)
	default:
		return ""
	}
}

// meant reports whether a value is this request, or a later one that replaced it on the Headscale:
// the key for a later request is new, too.
func (r *rotation) meant(headscale *v1beta1.Headscale, value string) bool {
	return value != "" && (value == r.request || value == headscale.Annotations[v1beta1.AnnotationRotateRequestedAt])
}

// stage returns how far the request has come.
func (r *rotation) stage(headscale *v1beta1.Headscale, secret secretView) stage {
	if secret.forbidden {
		return r.stageByStatus(headscale)
	}
	if secret.metadata == nil || !v1beta1.IsAPIKeySecret(secret.metadata.Labels) {
		return stageAsked
	}
	notes := secret.metadata.Annotations
	switch {
	case !r.meant(headscale, notes[v1beta1.AnnotationRotateHandled]) && r.meant(headscale, notes[v1beta1.AnnotationRotateRequestedAt]):
		return stageForwarded
	case !r.meant(headscale, notes[v1beta1.AnnotationRotateHandled]):
		return stageAsked
	case r.retiring(secret) != nil && !delayed(headscale):
		return stageStored
	default:
		return stageDone
	}
}

// stageByStatus returns how far the request has come where the Secret may not be read: by
// what the operator says of it.
func (r *rotation) stageByStatus(headscale *v1beta1.Headscale) stage {
	status := headscale.Status.APIKey
	switch {
	case status == nil || !r.meant(headscale, status.LastRotationRequest):
		return stageAsked
	case status.KeyPrefix == "" || status.KeyPrefix == r.oldPrefix:
		return stageForwarded
	default:
		return stageDone
	}
}

// retiring is the Secret's entry for the old key while it is not revoked yet, or nil.
func (r *rotation) retiring(secret secretView) *retiringKey {
	if secret.metadata == nil {
		return nil
	}
	for prefix, until := range v1beta1.LedgerEntries(secret.metadata.Annotations[v1beta1.AnnotationRetiring]) {
		if key := (retiringKey{Prefix: oneLine(prefix), ValidUntil: metav1.Time{Time: until}}); key.Prefix == r.oldPrefix {
			return &key
		}
	}
	return nil
}

// delayed reports whether replaced keys stay valid for a while.
func delayed(headscale *v1beta1.Headscale) bool {
	delay, err := headscale.Spec.APIKey.RevocationDelay.Parse()
	return err == nil && delay > 0
}

// report says what became of the request.
func (r *rotation) report(headscale *v1beta1.Headscale, secret secretView, state string) *rotationReport {
	report := &rotationReport{
		Namespace: headscale.Namespace, Name: headscale.Name, Secret: headscale.Spec.APIKey.EffectiveSecretName(),
		State: state, Request: r.request, OldPrefix: r.oldPrefix,
	}
	if state == rotationRequested {
		return report
	}
	report.NewPrefix = prefixOf(headscale, secret)
	if secret.forbidden {
		if headscale.Status.APIKey != nil {
			report.Expiration = headscale.Status.APIKey.Expiration
		}
		return report
	}
	report.Expiration = apiTime(keystate.ReadTime(secret.metadata.Annotations[v1beta1.AnnotationExpiration]))
	if r.oldPrefix != "" {
		retiring := r.retiring(secret)
		revoked := retiring == nil
		report.OldRevoked = &revoked
		if retiring != nil {
			report.OldValidUntil = &retiring.ValidUntil
		}
	}
	return report
}
