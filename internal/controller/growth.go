package controller

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// growth is a wish for a larger data volume.
type growth struct {
	from, to resource.Quantity
	// statefulSet is the one whose claim template has the old size.
	statefulSet *appsv1.StatefulSet
}

// resize sees to a wish for another data volume, after all else was done.
func (r *HeadscaleReconciler) resize(ctx context.Context, p *pass) error {
	if p.grow == nil {
		return p.refused
	}
	return r.growVolume(ctx, p.headscale, p.grow)
}

// growVolume asks for a larger volume, and then makes room for a StatefulSet with a
// claim template of the new size, which cannot be changed. Its pod is not touched: it
// is left without an owner until the new StatefulSet takes it.
func (r *HeadscaleReconciler) growVolume(ctx context.Context, headscale *v1beta1.Headscale, grow *growth) error {
	claim, err := r.dataClaim(ctx, headscale)
	if err != nil {
		return err
	}
	if claim != nil && storageOf(claim).Cmp(grow.to) < 0 {
		if err := r.growClaim(ctx, claim, grow); err != nil {
			return err
		}
		r.record(headscale, occurrence{false, v1beta1.EventVolumeGrown, fmt.Sprintf(
			"Claim %s asks for %s in place of %s", claim.Name, grow.to.String(), grow.from.String())})
	}
	if !grow.statefulSet.DeletionTimestamp.IsZero() {
		return nil
	}
	uid, version := grow.statefulSet.UID, grow.statefulSet.ResourceVersion
	err = r.Client.Delete(ctx, grow.statefulSet.DeepCopy(), client.PropagationPolicy(metav1.DeletePropagationOrphan),
		client.Preconditions{UID: &uid, ResourceVersion: &version})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("making the StatefulSet anew for the larger volume: %w", err)
	}
	return &waitError{v1beta1.ReasonProgressing, "The StatefulSet is being made anew for the larger volume; the pod goes on running"}
}

// growClaim writes the new size to the claim, where its storage class allows it.
func (r *HeadscaleReconciler) growClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim, grow *growth) error {
	if claim.Status.Phase != corev1.ClaimBound {
		return &waitError{v1beta1.ReasonVolumeWaiting, fmt.Sprintf("Claim %s must be bound before its volume can grow; kubectl describe pvc %[1]s tells why it is not", claim.Name)}
	}
	if err := r.checkExpandable(ctx, claim, grow); err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID, "resourceVersion": claim.ResourceVersion},
		"spec":     map[string]any{"resources": map[string]any{"requests": map[string]any{"storage": grow.to.String()}}},
	})
	if err != nil {
		return fmt.Errorf("encoding the size of claim %s: %w", claim.Name, err)
	}
	err = r.Client.Patch(ctx, claim.DeepCopy(), client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldManager))
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
		return cannotGrow(grow, "the API server refuses it: "+err.Error())
	}
	if err != nil {
		return fmt.Errorf("growing claim %s: %w", claim.Name, err)
	}
	return nil
}

// checkExpandable refuses to grow a volume whose storage class does not allow it. An
// operator that looks after some namespaces only may not be able to read the class:
// then the API server has the say when it is asked to grow the claim.
func (r *HeadscaleReconciler) checkExpandable(ctx context.Context, claim *corev1.PersistentVolumeClaim, grow *growth) error {
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName == "" {
		return cannotGrow(grow, "the volume has no StorageClass that could make it larger")
	}
	class := &storagev1.StorageClass{}
	name := *claim.Spec.StorageClassName
	err := r.Live.Get(ctx, client.ObjectKey{Name: name}, class)
	switch {
	case apierrors.IsForbidden(err):
		return nil
	case apierrors.IsNotFound(err):
		return cannotGrow(grow, fmt.Sprintf("there is no StorageClass %s any more", name))
	case err != nil:
		return fmt.Errorf("reading StorageClass %s: %w", name, err)
	case class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion:
		return cannotGrow(grow, fmt.Sprintf("StorageClass %s does not allow volumes to grow (allowVolumeExpansion)", name))
	default:
		return nil
	}
}

// cannotGrow says that, and why, a volume stays as small as it is.
func cannotGrow(grow *growth, why string) error {
	return &resources.InvalidError{Field: "persistent_volume_claim.size", Message: fmt.Sprintf(
		"cannot be changed from %q to %q, because %s: write %[1]q again, or move the data by hand to a Headscale of another name",
		grow.from.String(), grow.to.String(), why)}
}

// storageOf is how much storage a claim asks for.
func storageOf(claim *corev1.PersistentVolumeClaim) *resource.Quantity {
	return claim.Spec.Resources.Requests.Storage()
}
