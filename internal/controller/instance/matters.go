package instance

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// HeadscaleMatters reports a change of a Headscale by which what exists within it can be more or
// less than before.
var HeadscaleMatters = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, isHeadscale := e.ObjectOld.(*v1beta1.Headscale)
	after, isOne := e.ObjectNew.(*v1beta1.Headscale)
	return isHeadscale && isOne && !equality.Semantic.DeepEqual(whatMatters(before), whatMatters(after))
}}

// whatMatters is what what exists within a Headscale depends on. Its condition Ready stands for its pod
// and for its key.
func whatMatters(hs *v1beta1.Headscale) any {
	return []any{
		hs.Spec.Access, hs.Spec.Replicas, hs.Spec.APIKey.Managed(), hs.Spec.APIKey.EffectiveSecretName(), hs.DeletionTimestamp.IsZero(),
		hs.Status.Version, status.ReasonOf(hs.Status.Conditions, v1beta1.ConditionReady),
	}
}

// PodMatters reports a pod that has become another one, or can be asked, or no longer.
var PodMatters = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, isPod := e.ObjectOld.(*corev1.Pod)
	after, isOne := e.ObjectNew.(*corev1.Pod)
	return isPod && isOne && (before.UID != after.UID || before.Status.PodIP != after.Status.PodIP || IsReady(before) != IsReady(after))
}}

// NamespaceMatters reports a namespace with other labels, or that is being deleted.
var NamespaceMatters = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return !equality.Semantic.DeepEqual(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) ||
		e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
}}
