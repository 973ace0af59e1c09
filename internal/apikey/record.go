package apikey

import (
	"maps"

	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// ReadRecord reads a Secret. What cannot be read of it counts as missing.
func ReadRecord(secret *corev1.Secret) rotation.Record {
	notes := secret.Annotations
	record := rotation.Record{
		Ours:       v1beta1.IsAPIKeySecret(secret.Labels),
		Immutable:  secret.Immutable != nil && *secret.Immutable,
		Text:       ReadKey(secret),
		ID:         notes[v1beta1.AnnotationKeyPrefix],
		Digest:     notes[v1beta1.AnnotationKeyDigest],
		Expiration: rotation.ParseTime(notes[v1beta1.AnnotationExpiration]),
		CreatedAt:  rotation.ParseTime(notes[v1beta1.AnnotationCreatedAt]),
		Pending:    rotation.ParsePending(notes[v1beta1.AnnotationPending]),
		Retiring:   rotation.ParseRetiring(notes[v1beta1.AnnotationRetiring]),
		Requested:  v1beta1.RotationRequest(notes),
		Handled:    notes[v1beta1.AnnotationRotateHandled],
	}
	record.Regular = maps.Equal(WriteRecord(record, secret).Annotations, notes)
	return record
}

// ReadKey returns the key that a Secret holds, the zero Key if there is none.
func ReadKey(secret *corev1.Secret) headscale.Key {
	return headscale.NewKey(string(secret.Data[v1beta1.SecretDataKey]))
}

// keyOf returns the key of a record, the zero Key if there is none.
func keyOf(record *rotation.Record) headscale.Key {
	key, _ := record.Text.(headscale.Key)
	return key
}

// WriteRecord returns a copy of the Secret that says what the record says. Everything in
// it that is not ours stays.
func WriteRecord(record rotation.Record, secret *corev1.Secret) *corev1.Secret {
	secret = secret.DeepCopy()
	if secret.Labels == nil {
		secret.Labels = map[string]string{}
	}
	secret.Labels[v1beta1.LabelManagedBy] = v1beta1.ManagedBy
	secret.Labels[v1beta1.LabelComponent] = v1beta1.ComponentAPIKey

	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	for name, value := range annotationsOf(record) {
		if value == "" {
			delete(secret.Annotations, name)
		} else {
			secret.Annotations[name] = value
		}
	}

	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	if record.Text != nil && record.Text.Reveal() != "" {
		secret.Data[v1beta1.SecretDataKey] = []byte(record.Text.Reveal())
	}
	return secret
}

func annotationsOf(record rotation.Record) map[string]string {
	return map[string]string{
		v1beta1.AnnotationKeyPrefix:     record.ID,
		v1beta1.AnnotationKeyDigest:     record.Digest,
		v1beta1.AnnotationExpiration:    rotation.FormatTime(record.Expiration),
		v1beta1.AnnotationCreatedAt:     rotation.FormatTime(record.CreatedAt),
		v1beta1.AnnotationPending:       rotation.FormatPending(record.Pending),
		v1beta1.AnnotationRetiring:      rotation.FormatRetiring(record.Retiring),
		v1beta1.AnnotationRotateHandled: record.Handled,
	}
}
