package resources

import (
	"strings"

	metav1 "k8s.io/client-go/applyconfigurations/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Labels that Kubernetes recommends, beside those that are part of the API.
const (
	labelName     = "app.kubernetes.io/name"
	labelInstance = "app.kubernetes.io/instance"
	labelVersion  = "app.kubernetes.io/version"
)

// Values of the component label.
const (
	componentServer  = "server"
	componentMetrics = "metrics"
	componentManager = "api-key-manager"
)

// AnnotationVersion is on the claim of the data volume: the version of Headscale that last
// ran with it and answered. The volume outlives the Headscale, and its status.
const AnnotationVersion = v1beta1.GroupName + "/version"

// AnnotationConfigHash is on the pod: the SHA-256 digest of config.yaml in
// hexadecimal, so that a changed config makes a new pod.
const AnnotationConfigHash = v1beta1.GroupName + "/config-hash"

// annotationDefaultContainer is where kubectl looks for the container that a command
// without one is about.
const annotationDefaultContainer = "kubectl.kubernetes.io/default-container"

// metricsSuffix ends the name of the Service for the metrics.
const metricsSuffix = "-metrics"

// metricsName is the name of the Service for the metrics.
func metricsName(headscale *v1beta1.Headscale) string {
	return headscale.Name + metricsSuffix
}

// IsChildName tells whether a child object of a Headscale may have a name. (The pod and the
// claim of the data volume are the StatefulSet's.)
func IsChildName(headscale, name string) bool {
	return strings.TrimSuffix(name, metricsSuffix) == headscale || name == headscale
}

// selectorLabels are the labels by which the pods of a Headscale are found. They
// never change: a StatefulSet's selector cannot.
func selectorLabels(headscale *v1beta1.Headscale) map[string]string {
	return map[string]string{
		labelName:              "headscale",
		labelInstance:          headscale.Name,
		v1beta1.LabelManagedBy: v1beta1.ManagedBy,
	}
}

// labels are the labels of an object of a Headscale.
func labels(headscale *v1beta1.Headscale, component string) map[string]string {
	all := selectorLabels(headscale)
	all[v1beta1.LabelComponent] = component
	all[labelVersion] = headscale.Spec.Version
	return all
}

// owner makes an object part of a Headscale: it is deleted with it, and no other
// controller takes it.
func owner(headscale *v1beta1.Headscale) *metav1.OwnerReferenceApplyConfiguration {
	return metav1.OwnerReference().
		WithAPIVersion(v1beta1.GroupVersion.String()).
		WithKind(v1beta1.Kind).
		WithName(headscale.Name).
		WithUID(headscale.UID).
		WithController(true).
		WithBlockOwnerDeletion(true)
}

// InstanceOf is the name of the Headscale that an object with these labels is for,
// or "".
func InstanceOf(labels map[string]string) string {
	return labels[labelInstance]
}

// VersionOf is the version of Headscale that an object with these labels was made
// for, or "".
func VersionOf(labels map[string]string) string {
	return labels[labelVersion]
}

// PodName is the name of a Headscale's pod: the first of its StatefulSet.
func PodName(headscale *v1beta1.Headscale) string {
	return headscale.Name + "-0"
}

// DataClaimName is the name of the claim that the StatefulSet makes for the data
// volume.
func DataClaimName(headscale *v1beta1.Headscale) string {
	return volumeData + "-" + PodName(headscale)
}
