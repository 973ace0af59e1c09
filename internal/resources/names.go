package resources

import (
	"cmp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/client-go/applyconfigurations/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Labels that Kubernetes recommends, beside those that are part of the API.
const (
	labelName     = "app.kubernetes.io/name"
	labelInstance = "app.kubernetes.io/instance"
	labelVersion  = "app.kubernetes.io/version"
)

// nameHeadscale is the value of labelName.
const nameHeadscale = "headscale"

// Values of the component label.
const (
	componentServer  = "server"
	componentMetrics = "metrics"
	componentManager = "api-key-manager"
)

// AnnotationVersion is on the claim of the data volume: the version of Headscale that last
// ran with it and answered. The volume outlives the Headscale, and its status.
const AnnotationVersion = v1beta1.GroupName + "/version"

// AnnotationStartedVersion is on the same claim: the version of Headscale that was started last
// with it, whether or not it answered. It may have migrated the database.
const AnnotationStartedVersion = v1beta1.GroupName + "/started-version"

// LabelHeadscale is on the claim of the data volume: the name of the Headscale whose data it
// has. The claim outlives the Headscale and nothing owns it, so it does not keep the label
// app.kubernetes.io/instance: Argo CD may be configured to prune by that one.
const LabelHeadscale = v1beta1.LabelHeadscale

// annotationArgoSync is what Argo CD may do with an object. Its value on the claim of the
// data volume is neverPruned: the StatefulSet's controller copies the labels of its selector
// to the claims that it makes, with app.kubernetes.io/instance among them.
const (
	annotationArgoSync = "argocd.argoproj.io/sync-options"
	neverPruned        = "Prune=false,Delete=false"
)

// AnnotationConfigHash is on the pod: the SHA-256 digest of config.yaml in
// hexadecimal, so that a changed config makes a new pod.
const AnnotationConfigHash = v1beta1.GroupName + "/config-hash"

// AnnotationReferences is on the pod where the Headscale refers to Secrets or
// ConfigMaps: a digest of their data, so that a change of it makes a new pod.
const AnnotationReferences = v1beta1.GroupName + "/references-hash"

// annotationDefaultContainer is where kubectl looks for the container that a command
// without one is about.
const annotationDefaultContainer = "kubectl.kubernetes.io/default-container"

// metricsSuffix ends the name of the Service for the metrics.
const metricsSuffix = "-metrics"

// metricsName is the name of the Service for the metrics.
func metricsName(headscale *v1beta1.Headscale) string {
	return headscale.Name + metricsSuffix
}

// IsChildName reports whether a child object of a Headscale may have a name. (The pod and the
// claim of the data volume are the StatefulSet's.)
func IsChildName(headscale, name string) bool {
	suffix, ofIt := strings.CutPrefix(name, headscale)
	return ofIt && slices.Contains([]string{"", metricsSuffix, preflightSuffix, backupSuffix, verifySuffix}, suffix)
}

// selectorLabels are the labels by which the pods of a Headscale are found. They
// never change: a StatefulSet's selector cannot.
func selectorLabels(headscale *v1beta1.Headscale) map[string]string {
	return map[string]string{
		labelName:              nameHeadscale,
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
// or "". A pod of a preflight has another label, by which no Service finds it.
func InstanceOf(labels map[string]string) string {
	return cmp.Or(labels[labelInstance], HeadscaleOfPreflight(labels), HeadscaleOfVerification(labels))
}

// HeadscaleOfClaim is the name of the Headscale whose data volume a claim of that name is
// for, or "".
func HeadscaleOfClaim(claim string) string {
	pod, isData := strings.CutPrefix(claim, volumeData+"-")
	name, first := strings.CutSuffix(pod, "-0")
	if !isData || !first {
		return ""
	}
	return name
}

// ClaimMetadata is what the labels and annotations of the claim of a Headscale's data volume
// are changed to, as a merge patch: nil removes. Both are nil where that was done before:
// what others write to the claim afterwards stays.
func ClaimMetadata(headscale *v1beta1.Headscale, claim *corev1.PersistentVolumeClaim) (labels, annotations map[string]any) {
	if claim.Labels[LabelHeadscale] == headscale.Name && claim.Labels[v1beta1.LabelManagedBy] == v1beta1.ManagedBy {
		return nil, nil
	}
	labels = map[string]any{
		LabelHeadscale:         headscale.Name,
		labelName:              nameHeadscale,
		v1beta1.LabelManagedBy: v1beta1.ManagedBy,
	}
	if claim.Labels[labelInstance] == headscale.Name {
		labels[labelInstance] = nil
	}
	annotations = map[string]any{}
	if claim.Annotations[annotationArgoSync] == "" {
		annotations[annotationArgoSync] = neverPruned
	}
	return labels, annotations
}

// VersionOf is the version of Headscale that an object with these labels was made
// for, or "".
func VersionOf(labels map[string]string) string {
	return labels[labelVersion]
}

// MetadataKeys are the labels and annotations that the operator reads of objects in its cache.
func MetadataKeys() []string {
	return []string{
		labelName, labelInstance, labelVersion, v1beta1.LabelManagedBy, v1beta1.LabelComponent, LabelHeadscale,
		AnnotationVersion, AnnotationStartedVersion, AnnotationBackupIncarnation, AnnotationPreflightDigest, AnnotationPreflightAttempt, annotationArgoSync, appsv1.ControllerRevisionHashLabelKey,
		v1beta1.AnnotationExpiration, v1beta1.AnnotationCreatedAt, v1beta1.AnnotationKeyPrefix, v1beta1.AnnotationKeyDigest,
		v1beta1.AnnotationPending, v1beta1.AnnotationRetiring, v1beta1.AnnotationRotateRequestedAt, v1beta1.AnnotationRotateHandled,
		v1beta1.AnnotationAdminCertificate, v1beta1.AnnotationIdentity,
	}
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
