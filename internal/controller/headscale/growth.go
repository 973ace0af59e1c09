package headscale

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

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

// growthRetry is how long after a volume could not be made larger the operator looks
// again. Nothing tells it when a StorageClass or a quota is changed.
const growthRetry = time.Minute

// growth is a wish for a larger data volume.
type growth struct {
	from, to resource.Quantity
	// statefulSet is the one whose claim template has the old size; nil where none has.
	statefulSet *appsv1.StatefulSet
}

// resize sees to a wish for another data volume, after all else was done. What there is is
// judged by the claim: it may be there from before, and other than the StatefulSet says.
func (r *HeadscaleReconciler) resize(ctx context.Context, p *pass) error {
	if p.refused != nil {
		return p.refused
	}
	wish := &p.objects.StatefulSet.Spec.VolumeClaimTemplates[0]
	if p.claim != nil {
		if err := checkClass(wish, p.claim); err != nil {
			return err
		}
	}
	grow := p.grow
	if size := claimSize(wish); grow == nil && p.claim != nil && storageOf(p.claim).Cmp(size) < 0 {
		grow = &growth{from: *storageOf(p.claim), to: size}
	}
	if grow == nil {
		return nil
	}
	return r.growVolume(ctx, p.headscale, p.claim, grow)
}

// growVolume asks for a larger volume, and then makes room for a StatefulSet with a
// claim template of the new size, which cannot be changed. Its pod is not touched: it
// is left without an owner until the new StatefulSet takes it.
func (r *HeadscaleReconciler) growVolume(ctx context.Context, headscale *v1beta1.Headscale, claim *corev1.PersistentVolumeClaim, grow *growth) error {
	if claim != nil && storageOf(claim).Cmp(grow.to) < 0 {
		if err := r.growClaim(ctx, claim, grow); err != nil {
			return err
		}
		r.record(headscale, occurrence{false, v1beta1.EventVolumeGrown, fmt.Sprintf(
			"Claim %s asks for %s in place of %s", claim.Name, grow.to.String(), grow.from.String())})
	}
	if grow.statefulSet == nil || !grow.statefulSet.DeletionTimestamp.IsZero() {
		return nil
	}
	uid, version := grow.statefulSet.UID, grow.statefulSet.ResourceVersion
	err := r.Client.Delete(ctx, grow.statefulSet.DeepCopy(), client.PropagationPolicy(metav1.DeletePropagationOrphan),
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
		return cannotGrow(grow, "the API server refuses it: "+err.Error(), "see to what it says")
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("growing claim %s: %w", claim.Name, err)
	}
	return nil
}

// checkExpandable refuses to grow a volume whose storage class does not allow it. An
// operator that looks after some namespaces only may not be able to read the class:
// then the API server has the say when it is asked to grow the claim.
func (r *HeadscaleReconciler) checkExpandable(ctx context.Context, claim *corev1.PersistentVolumeClaim, grow *growth) error {
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName == "" {
		return cannotGrow(grow, "the volume has no StorageClass that could make it larger", "")
	}
	class := &storagev1.StorageClass{}
	name := *claim.Spec.StorageClassName
	err := r.Live.Get(ctx, client.ObjectKey{Name: name}, class)
	switch {
	case apierrors.IsForbidden(err):
		return nil
	case apierrors.IsNotFound(err):
		return cannotGrow(grow, fmt.Sprintf("there is no StorageClass %s any more", name), "make it again")
	case err != nil:
		return fmt.Errorf("reading StorageClass %s: %w", name, err)
	case class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion:
		return cannotGrow(grow, fmt.Sprintf("StorageClass %s does not allow volumes to grow", name), "set its allowVolumeExpansion to true if its volumes can")
	default:
		return nil
	}
}

// cannotGrow says that, and why, a volume stays as small as it is, and what may help.
func cannotGrow(grow *growth, why, remedy string) error {
	if remedy != "" {
		remedy += ", "
	}
	return &laterError{growthRetry, &resources.InvalidError{Field: "persistent_volume_claim.size", Message: fmt.Sprintf(
		"cannot be changed from %q to %q, because %s: %swrite %[1]q again, or move the data by hand to a Headscale of another name",
		grow.from.String(), grow.to.String(), why, remedy)}}
}

// storageOf is how much storage a claim asks for.
func storageOf(claim *corev1.PersistentVolumeClaim) *resource.Quantity {
	return claim.Spec.Resources.Requests.Storage()
}
