package resources

import (
	"crypto/sha256"
	"encoding/hex"

	corev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// configMap holds config.yaml.
func configMap(headscale *v1beta1.Headscale, config string) *corev1.ConfigMapApplyConfiguration {
	return corev1.ConfigMap(headscale.Name, headscale.Namespace).
		WithLabels(labels(headscale, componentServer)).
		WithOwnerReferences(owner(headscale)).
		WithData(map[string]string{ConfigFile: config})
}

// configHash is the value of AnnotationConfigHash for a config.
func configHash(config string) string {
	digest := sha256.Sum256([]byte(config))
	return hex.EncodeToString(digest[:])
}
