package instance

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// HeadscaleMatters passes a change of a Headscale on which users, pre-auth keys and policies within it
// depend.
var HeadscaleMatters = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, isHeadscale := e.ObjectOld.(*v1beta1.Headscale)
	after, isOne := e.ObjectNew.(*v1beta1.Headscale)
	return isHeadscale && isOne && !equality.Semantic.DeepEqual(relevantFields(before), relevantFields(after))
}}

// relevantFields are the fields of a Headscale on which the objects within it depend. Its condition
// Ready stands for its pod and for its key.
func relevantFields(hs *v1beta1.Headscale) any {
	return []any{
		hs.Spec.Access, hs.Spec.Replicas, hs.Spec.APIKey.Managed(), hs.Spec.APIKey.EffectiveSecretName(), hs.DeletionTimestamp.IsZero(),
		hs.Status.Version, status.ReasonOf(hs.Status.Conditions, v1beta1.ConditionReady),
	}
}

// PodMatters passes a pod that was replaced, or became ready or not ready, or has another address.
var PodMatters = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, isPod := e.ObjectOld.(*corev1.Pod)
	after, isOne := e.ObjectNew.(*corev1.Pod)
	return isPod && isOne && (before.UID != after.UID || before.Status.PodIP != after.Status.PodIP || IsReady(before) != IsReady(after))
}}

// NamespaceMatters passes a namespace whose labels have changed, or that is being deleted.
var NamespaceMatters = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return !equality.Semantic.DeepEqual(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) ||
		e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
}}
