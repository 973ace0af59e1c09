package resources

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// statefulSet runs Headscale's one pod.
func statefulSet(headscale *v1beta1.Headscale, pod *corev1ac.PodTemplateSpecApplyConfiguration) *appsv1ac.StatefulSetApplyConfiguration {
	return appsv1ac.StatefulSet(headscale.Name, headscale.Namespace).
		WithLabels(labels(headscale, componentServer)).
		WithOwnerReferences(owner(headscale)).
		WithSpec(appsv1ac.StatefulSetSpec().
			WithReplicas(replicas(headscale)).
			WithServiceName(headscale.Name).
			// With the other policy a pod that never becomes ready would not be replaced
			// when its config is fixed.
			WithPodManagementPolicy(appsv1.ParallelPodManagement).
			WithSelector(metav1ac.LabelSelector().WithMatchLabels(selectorLabels(headscale))).
			WithTemplate(pod).
			WithVolumeClaimTemplates(dataClaim(headscale)))
}

// replicas is the number of pods, 1 where the user wrote nothing.
func replicas(headscale *v1beta1.Headscale) int32 {
	if headscale.Spec.Replicas == nil {
		return 1
	}
	return *headscale.Spec.Replicas
}

// dataClaim asks for the volume with the database and the private keys. Its labels are the
// ones that never change, as the template cannot; ClaimMetadata has the rest.
func dataClaim(headscale *v1beta1.Headscale) *corev1ac.PersistentVolumeClaimApplyConfiguration {
	claim := headscale.Spec.PersistentVolumeClaim
	size := claim.Size
	if size.IsZero() {
		size = defaultVolumeSize
	}
	spec := corev1ac.PersistentVolumeClaimSpec().
		WithAccessModes(corev1.ReadWriteOnce).
		WithVolumeMode(corev1.PersistentVolumeFilesystem).
		WithResources(corev1ac.VolumeResourceRequirements().
			WithRequests(corev1.ResourceList{corev1.ResourceStorage: size}))
	if claim.StorageClassName != nil {
		spec.WithStorageClassName(*claim.StorageClassName)
	}
	template := corev1ac.PersistentVolumeClaim(volumeData, "").
		WithLabels(map[string]string{labelName: nameHeadscale, v1beta1.LabelManagedBy: v1beta1.ManagedBy}).
		WithAnnotations(map[string]string{annotationArgoSync: neverPruned}).
		WithSpec(spec)
	template.Namespace = nil
	return template
}
