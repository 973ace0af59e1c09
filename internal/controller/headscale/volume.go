package headscale

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// expansionRetry is how long after a volume could not be expanded the operator tries again.
// No watch reports when a StorageClass or a quota is changed.
const expansionRetry = time.Minute

// extractStatefulSet extracts what a field manager applied. The claims are one field
// to the API server, which adds a status to each that nobody applied. It has their kind in
// JSON alone.
func extractStatefulSet(live *appsv1.StatefulSet, fieldManager string) (*appsv1ac.StatefulSetApplyConfiguration, error) {
	owned, err := appsv1ac.ExtractStatefulSet(live, fieldManager)
	if err != nil || owned.Spec == nil {
		return owned, err
	}
	for i := range owned.Spec.VolumeClaimTemplates {
		claim := &owned.Spec.VolumeClaimTemplates[i]
		claim.Status, claim.Kind, claim.APIVersion = nil, nil, nil
	}
	return owned, nil
}

// keepClaimTemplates returns the wanted StatefulSet with the claim templates of the one that
// exists, which cannot be changed.
func keepClaimTemplates(want, owned *appsv1ac.StatefulSetApplyConfiguration) *appsv1ac.StatefulSetApplyConfiguration {
	if owned.Spec == nil || len(owned.Spec.VolumeClaimTemplates) != 1 || len(want.Spec.VolumeClaimTemplates) != 1 {
		return want
	}
	kept, spec := *want, *want.Spec
	spec.VolumeClaimTemplates = owned.Spec.VolumeClaimTemplates
	kept.Spec = &spec
	return &kept
}

// expansion is a change to a larger data volume.
type expansion struct {
	from, to resource.Quantity
	// recreate is whether the StatefulSet has the old size in its claim template.
	recreate bool
}

// planVolume compares the wanted claim with the claim template of the StatefulSet, and with
// the claim that exists, which may be older than the StatefulSet and different. It returns
// nil where nothing has to change, and an *resources.InvalidError for a change that cannot
// be made.
func planVolume(want *corev1ac.PersistentVolumeClaimApplyConfiguration, o observed) (*expansion, error) {
	size, class := claimSize(want), claimClass(want)
	var expand *expansion
	if o.statefulSet != nil && len(o.statefulSet.Spec.VolumeClaimTemplates) == 1 {
		template := &o.statefulSet.Spec.VolumeClaimTemplates[0]
		if err := compareWithTemplate(size, class, template); err != nil {
			return nil, err
		}
		if size.Cmp(*storageOf(template)) > 0 {
			expand = &expansion{from: *storageOf(template), to: size, recreate: true}
		}
	}
	if o.claim == nil {
		return expand, nil
	}
	if err := compareWithClaim(want.Spec.StorageClassName, o.claim); err != nil {
		return nil, err
	}
	if expand == nil && size.Cmp(*storageOf(o.claim)) > 0 {
		expand = &expansion{from: *storageOf(o.claim), to: size}
	}
	return expand, nil
}

// compareWithTemplate refuses a smaller size and another class than the StatefulSet has.
func compareWithTemplate(size resource.Quantity, class string, template *corev1.PersistentVolumeClaim) error {
	const advice = "cannot be changed from %q to %q while the volume is in use: write %[1]q again, or move the data by hand to a Headscale with another name"
	given := ""
	if template.Spec.StorageClassName != nil {
		given = *template.Spec.StorageClassName
	}
	switch {
	case size.Cmp(*storageOf(template)) < 0:
		return &resources.InvalidError{Field: "persistent_volume_claim.size", Message: fmt.Sprintf(advice, storageOf(template).String(), size.String())}
	case class != given:
		return &resources.InvalidError{Field: "persistent_volume_claim.storage_class_name", Message: fmt.Sprintf(advice, given, class)}
	default:
		return nil
	}
}

// compareWithClaim refuses a class that a claim from before does not have.
func compareWithClaim(class *string, claim *corev1.PersistentVolumeClaim) error {
	if class == nil || claim.Spec.StorageClassName == nil || *class == *claim.Spec.StorageClassName {
		return nil
	}
	return &resources.InvalidError{Field: "persistent_volume_claim.storage_class_name", Message: fmt.Sprintf(
		"is %q, but the existing claim %s has %q: set it to %[3]q, or remove it, or move the data by hand to a Headscale with another name",
		*class, claim.Name, *claim.Spec.StorageClassName)}
}

// resize expands the data volume where the spec asks for that. The StatefulSet is recreated
// only where all else is well. It is the Headscale's own, or the claim may be somebody else's.
func (r *Reconciler) resize(ctx context.Context, s scope, o observed, want *resources.Objects, well bool) error {
	if o.statefulSet == nil {
		return nil
	}
	expand, err := planVolume(&want.StatefulSet.Spec.VolumeClaimTemplates[0], o)
	if expand == nil || err != nil {
		return err
	}
	if o.claim != nil && storageOf(o.claim).Cmp(expand.to) < 0 {
		if err := r.expandClaim(ctx, s, o.claim, expand); err != nil {
			return err
		}
	}
	if !well || !expand.recreate || !o.statefulSet.DeletionTimestamp.IsZero() {
		return nil
	}
	if err := r.checkCreatable(ctx, want.StatefulSet); err != nil {
		return err
	}
	return r.recreateStatefulSet(ctx, o.statefulSet)
}

// checkCreatable asks whether the StatefulSet could be created if it were not there: a policy
// that is newer than it may refuse that, and the pod would be left without a controller. Where
// an admission webhook does not support a dry run, that is unknown.
func (r *Reconciler) checkCreatable(ctx context.Context, want *appsv1ac.StatefulSetApplyConfiguration) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(want)
	if err != nil {
		return fmt.Errorf("encoding the StatefulSet: %w", err)
	}
	err = r.Client.Create(ctx, &unstructured.Unstructured{Object: fields}, client.DryRunAll, client.FieldOwner(FieldManager))
	switch {
	case err == nil, apierrors.IsAlreadyExists(err),
		apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "does not support dry run"),
		apierrors.IsForbidden(err) && quotaLeavesRoom(err.Error()):
		return nil
	default:
		return fmt.Errorf("asking whether the StatefulSet can be recreated to expand the volume: %w", err)
	}
}

// quotaLeavesRoom reports whether a message says that a quota is used up by no more than what
// it allows: then the StatefulSet is in it, and its deletion makes room for the new one. The
// operator may not read quotas. The API server's words are
// "exceeded quota: NAME, requested: RESOURCE=1, used: RESOURCE=1, limited: RESOURCE=1".
func quotaLeavesRoom(message string) bool {
	_, message, _ = strings.Cut(message, "exceeded quota: ")
	_, message, _ = strings.Cut(message, ", used: ")
	used, limited, found := strings.Cut(message, ", limited: ")
	if !found {
		return false
	}
	uses, limits := amounts(used), amounts(limited)
	for name, limit := range limits {
		if use, isUsed := uses[name]; !isUsed || use.Cmp(limit) > 0 {
			return false
		}
	}
	return len(limits) > 0
}

// amounts reads a list such as "count/statefulsets.apps=1,pods=2", without what is no amount.
func amounts(list string) map[string]resource.Quantity {
	read := map[string]resource.Quantity{}
	for entry := range strings.SplitSeq(list, ",") {
		name, amount, _ := strings.Cut(entry, "=")
		if quantity, err := resource.ParseQuantity(amount); err == nil {
			read[name] = quantity
		}
	}
	return read
}

// recreateStatefulSet deletes the StatefulSet, so that the next reconcile creates one with a claim
// template of the new size. Its pod keeps running without an owner until then.
func (r *Reconciler) recreateStatefulSet(ctx context.Context, statefulSet *appsv1.StatefulSet) error {
	uid, version := statefulSet.UID, statefulSet.ResourceVersion
	err := r.Client.Delete(ctx, statefulSet.DeepCopy(), client.PropagationPolicy(metav1.DeletePropagationOrphan),
		client.Preconditions{UID: &uid, ResourceVersion: &version})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting the StatefulSet to expand the volume: %w", err)
	}
	return &status.WaitError{Because: v1beta1.ReasonProgressing, Message: "Recreating the StatefulSet to expand the volume; the pod keeps running"}
}

// expandClaim writes the new size to the claim, where its storage class allows it. A claim
// that is gone is made again by the StatefulSet, and expanded then.
func (r *Reconciler) expandClaim(ctx context.Context, s scope, claim *corev1.PersistentVolumeClaim, expand *expansion) error {
	if claim.Status.Phase != corev1.ClaimBound {
		return &status.WaitError{Because: v1beta1.ReasonVolumeWaiting, Message: fmt.Sprintf(
			"Claim %s must be bound before its volume can be expanded; kubectl describe pvc %[1]s tells why it is not", claim.Name)}
	}
	if err := r.checkExpandable(ctx, claim, expand); err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID, "resourceVersion": claim.ResourceVersion},
		"spec":     map[string]any{"resources": map[string]any{"requests": map[string]any{"storage": expand.to.String()}}},
	})
	if err != nil {
		return fmt.Errorf("encoding the size of claim %s: %w", claim.Name, err)
	}
	err = r.Client.Patch(ctx, claim.DeepCopy(), client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldManager))
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsInvalid(err):
		return cannotExpand(expand, "the API server refuses it: "+err.Error(), "fix the cause")
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("expanding claim %s: %w", claim.Name, err)
	}
	status.Record(r.Events, s.headscale, status.Event{Action: status.ActionReconcile, Reason: v1beta1.EventVolumeGrown, Note: fmt.Sprintf(
		"Claim %s requests %s instead of %s", claim.Name, expand.to.String(), expand.from.String())})
	return nil
}

// checkExpandable refuses to expand a volume whose storage class does not allow it. An
// operator that watches some namespaces only may not be allowed to read the class: then the
// API server decides when it is asked to expand the claim.
func (r *Reconciler) checkExpandable(ctx context.Context, claim *corev1.PersistentVolumeClaim, expand *expansion) error {
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName == "" {
		return cannotExpand(expand, "the volume has no StorageClass that could expand it", "")
	}
	class := &storagev1.StorageClass{}
	name := *claim.Spec.StorageClassName
	err := r.Live.Get(ctx, client.ObjectKey{Name: name}, class)
	switch {
	case apierrors.IsForbidden(err):
		return nil
	case apierrors.IsNotFound(err):
		return cannotExpand(expand, fmt.Sprintf("StorageClass %s does not exist any more", name), "create it again")
	case err != nil:
		return fmt.Errorf("reading StorageClass %s: %w", name, err)
	case class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion:
		return cannotExpand(expand, fmt.Sprintf("StorageClass %s does not allow volume expansion", name), "set its allowVolumeExpansion to true if its volumes can be expanded")
	default:
		return nil
	}
}

// cannotExpand says that, and why, a volume stays as small as it is, and what may help.
func cannotExpand(expand *expansion, why, remedy string) error {
	if remedy != "" {
		remedy += ", "
	}
	return status.Later(expansionRetry, &resources.InvalidError{Field: "persistent_volume_claim.size", Message: fmt.Sprintf(
		"cannot be changed from %q to %q, because %s: %swrite %[1]q again, or move the data by hand to a Headscale with another name",
		expand.from.String(), expand.to.String(), why, remedy)})
}

// storageOf is how much storage a claim requests.
func storageOf(claim *corev1.PersistentVolumeClaim) *resource.Quantity {
	return claim.Spec.Resources.Requests.Storage()
}

// claimSize is the size that a wanted claim requests.
func claimSize(claim *corev1ac.PersistentVolumeClaimApplyConfiguration) resource.Quantity {
	if claim.Spec == nil || claim.Spec.Resources == nil || claim.Spec.Resources.Requests == nil {
		return resource.Quantity{}
	}
	return (*claim.Spec.Resources.Requests)[corev1.ResourceStorage]
}

// claimClass is the storage class that a wanted claim names, or "" for the default.
func claimClass(claim *corev1ac.PersistentVolumeClaimApplyConfiguration) string {
	if claim.Spec == nil || claim.Spec.StorageClassName == nil {
		return ""
	}
	return *claim.Spec.StorageClassName
}
