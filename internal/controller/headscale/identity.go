package headscale

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// identitySecret is the name of the Secret in which the sidecar of a Headscale keeps its private
// keys, if it does.
func (r *Reconciler) identitySecret(headscale *v1beta1.Headscale) []string {
	if !resources.KeepsIdentity(headscale, r.Options.ManagerImage) {
		return nil
	}
	return []string{resources.IdentityName(headscale)}
}

// isSidecars reports whether a Secret exists and is one that the sidecar of a Headscale writes to.
func (r *Reconciler) isSidecars(headscale *v1beta1.Headscale, name string, secret *metav1.PartialObjectMetadata) bool {
	switch {
	case secret == nil:
		return false
	case name != resources.IdentityName(headscale) || slices.Contains(secretNameOf(headscale), name):
		return isOurs(secret)
	case resources.KeepsIdentity(headscale, r.Options.ManagerImage):
		return v1beta1.IsIdentitySecret(secret.Labels)
	default:
		// The Role may name it still: from the private keys, or from an API key that was there.
		return v1beta1.IsIdentitySecret(secret.Labels) || isOurs(secret)
	}
}

// identityIsForeign reports whether the Secret for the private keys exists and is somebody else's.
func identityIsForeign(o *observed) bool {
	return o.identity != nil && !v1beta1.IsIdentitySecret(o.identity.Labels)
}

// identityWarnings say which private keys of a Headscale with a backup would be lost with the data
// volume, and when more of them count as such; zero: none will.
func identityWarnings(s scope, o *observed) (warnings []string, later time.Time) {
	if len(o.identityKeys) == 0 || o.pod == nil {
		return nil, time.Time{}
	}
	name, pod := resources.IdentityName(s.headscale), resources.PodName(s.headscale)
	if identityIsForeign(o) {
		return []string{fmt.Sprintf("Secret %s exists and was not created by the API Key Manager, so it is neither used nor changed, and Headscale's private keys are lost with the data volume: "+
			"delete it, after which the pod is replaced, or name a Secret in spec.secrets.noise_private_key and spec.secrets.derp_private_key", name)}, time.Time{}
	}
	var missing []string
	for _, entry := range o.identityKeys {
		switch identityState(o.identity, entry) {
		case v1beta1.IdentityKept:
		case v1beta1.IdentityDiffers:
			warnings = append(warnings, fmt.Sprintf("the data volume has another %[1]s than Secret %[2]s, and neither is overwritten: to go back to the key of the Secret, delete the file from the volume and then pod %[3]s; "+
				"to keep the one of the volume, delete the entry %[1]s from the Secret", entry, name, pod))
		default:
			missing = append(missing, entry)
		}
	}
	if len(missing) == 0 {
		return warnings, time.Time{}
	}
	if due := trueSince(s, v1beta1.ConditionAvailable).Add(failingAfter); due.After(s.now) {
		return warnings, due
	}
	return append(warnings, fmt.Sprintf("Headscale's private keys (%s) are not in Secret %s and would be lost with the data volume; kubectl logs %[3]s -c %[4]s and kubectl logs %[3]s -c %[5]s tell why",
		strings.Join(missing, ", "), name, pod, resources.ContainerManager, resources.ContainerIdentity)), time.Time{}
}

// identityState is what the API Key Manager says of a key in the Secret, or "".
func identityState(secret *metav1.PartialObjectMetadata, entry string) string {
	if secret == nil {
		return ""
	}
	all := strings.Split(secret.Annotations[v1beta1.AnnotationIdentity], ",")
	for _, state := range []string{v1beta1.IdentityKept, v1beta1.IdentityDiffers} {
		if slices.Contains(all, entry+"="+state) {
			return state
		}
	}
	return ""
}

// stateOfRestorer says why a pod waits for a container that prepares its volume, or nil.
func stateOfRestorer(pod *corev1.Pod, what string, container *corev1.ContainerStatus) *status.Condition {
	trouble := stateOfContainer(pod.Name, what, container)
	if trouble != nil && trouble.Reason == v1beta1.ReasonCrashing {
		trouble.Reason = v1beta1.ReasonRestoreFailed
	}
	return trouble
}
