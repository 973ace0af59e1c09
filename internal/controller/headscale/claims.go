package headscale

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/internal/resources"
)

// extractStatefulSet extracts what a field manager applied. The claims are one field
// to the API server, which adds a status to each that nobody applied.
func extractStatefulSet(live *appsv1.StatefulSet, fieldManager string) (*appsv1ac.StatefulSetApplyConfiguration, error) {
	owned, err := appsv1ac.ExtractStatefulSet(live, fieldManager)
	if err != nil || owned.Spec == nil {
		return owned, err
	}
	for i := range owned.Spec.VolumeClaimTemplates {
		owned.Spec.VolumeClaimTemplates[i].Status = nil
	}
	return owned, nil
}

// adoptClaims returns what is wanted with the claims that the StatefulSet has, because
// they cannot be changed while it exists, and what makes them larger where the user wants
// that, and an error where they would have to change in another way.
func adoptClaims(want, owned *appsv1ac.StatefulSetApplyConfiguration, live *appsv1.StatefulSet) (*appsv1ac.StatefulSetApplyConfiguration, *growth, error) {
	if owned.Spec == nil || len(owned.Spec.VolumeClaimTemplates) != 1 || len(want.Spec.VolumeClaimTemplates) != 1 {
		return want, nil, nil
	}
	wanted, given := want.Spec.VolumeClaimTemplates[0], owned.Spec.VolumeClaimTemplates[0]
	adopted, spec := *want, *want.Spec
	spec.VolumeClaimTemplates = []corev1ac.PersistentVolumeClaimApplyConfiguration{given}
	adopted.Spec = &spec
	if err := compareClaims(&wanted, &given); err != nil {
		return &adopted, nil, err
	}
	from, to := claimSize(&given), claimSize(&wanted)
	if to.Cmp(from) <= 0 {
		return &adopted, nil, nil
	}
	return &adopted, &growth{from: from, to: to, statefulSet: live}, nil
}

// compareClaims says which part of a wanted claim cannot be had with the one that
// exists.
func compareClaims(wanted, given *corev1ac.PersistentVolumeClaimApplyConfiguration) error {
	const advice = "cannot be changed from %q to %q while the volume is in use: write %[1]q again, or move the data by hand to a Headscale of another name"
	wantedSize, givenSize := claimSize(wanted), claimSize(given)
	if wantedSize.Cmp(givenSize) < 0 {
		return &resources.InvalidError{Field: "persistent_volume_claim.size", Message: fmt.Sprintf(advice, givenSize.String(), wantedSize.String())}
	}
	wantedClass, givenClass := claimClass(wanted), claimClass(given)
	if wantedClass != givenClass {
		return &resources.InvalidError{Field: "persistent_volume_claim.storage_class_name", Message: fmt.Sprintf(advice, givenClass, wantedClass)}
	}
	return nil
}

// checkClass refuses a class that the claim, which was there before, does not have.
func checkClass(wanted *corev1ac.PersistentVolumeClaimApplyConfiguration, claim *corev1.PersistentVolumeClaim) error {
	if wanted.Spec.StorageClassName == nil || claim.Spec.StorageClassName == nil || *wanted.Spec.StorageClassName == *claim.Spec.StorageClassName {
		return nil
	}
	return &resources.InvalidError{Field: "persistent_volume_claim.storage_class_name", Message: fmt.Sprintf(
		"is %q, and claim %s, which was there before, has %q: write %[3]q, or leave it out, or move the data by hand to a Headscale of another name",
		*wanted.Spec.StorageClassName, claim.Name, *claim.Spec.StorageClassName)}
}

// claimSize is the size that a claim asks for.
func claimSize(claim *corev1ac.PersistentVolumeClaimApplyConfiguration) resource.Quantity {
	if claim.Spec == nil || claim.Spec.Resources == nil || claim.Spec.Resources.Requests == nil {
		return resource.Quantity{}
	}
	return (*claim.Spec.Resources.Requests)[corev1.ResourceStorage]
}

// claimClass is the storage class that a claim asks for, or "" for the default.
func claimClass(claim *corev1ac.PersistentVolumeClaimApplyConfiguration) string {
	if claim.Spec == nil || claim.Spec.StorageClassName == nil {
		return ""
	}
	return *claim.Spec.StorageClassName
}
