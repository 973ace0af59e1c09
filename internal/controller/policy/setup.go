package policy

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// maxConcurrentReconciles is how many Headscales have their policies reconciled at once.
const maxConcurrentReconciles = 8

// index finds the HeadscalePolicies of a Headscale.
const index = "policyOf"

// CachedObjects says what the cache holds for this controller.
func CachedObjects() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{&v1beta1.HeadscalePolicy{}: {Transform: strip}}
}

// strip leaves of the metadata of a HeadscalePolicy what is read.
func strip(object any) (any, error) {
	if policy, ok := object.(*v1beta1.HeadscalePolicy); ok {
		policy.ManagedFields, policy.Labels, policy.OwnerReferences, policy.Annotations, policy.Finalizers = nil, nil, nil, nil, nil
	}
	return object, nil
}

// SetupWithManager starts watching with the manager.
func (r *Reconciler) SetupWithManager(ctx context.Context, m manager.Manager) error {
	if err := m.GetFieldIndexer().IndexField(ctx, &v1beta1.HeadscalePolicy{}, index, indexed); err != nil {
		return fmt.Errorf("indexing HeadscalePolicies: %w", err)
	}
	if r.Events == nil {
		r.Events = m.GetEventRecorder(fieldManager)
	}
	r.kind = &instance.Kind{
		Objects: r.firstOf, Differs: differs, NeedsNodes: func(client.Object) bool { return false }, NeedsPolicy: true, Workers: maxConcurrentReconciles,
	}
	looked := r.Instances.AddKind(r.kind)
	err := builder.ControllerManagedBy(m).
		Named("headscalepolicy").
		Watches(&v1beta1.HeadscalePolicy{}, handler.EnqueueRequestsFromMapFunc(headscaleOf), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1beta1.Headscale{}, handler.EnqueueRequestsFromMapFunc(r.resetHeadscale), builder.WithPredicates(headscaleMatters)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.resetPod), builder.WithPredicates(podMatters)).
		WatchesRawSource(source.Channel(looked, handler.EnqueueRequestsFromMapFunc(headscaleOf))).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: maxConcurrentReconciles, ReconciliationTimeout: reconcileTimeout,
			RateLimiter: status.NewRateLimiter(), RecoverPanic: ptr.To(true),
		}).Complete(r)
	if err != nil {
		return fmt.Errorf("setting up the controller of HeadscalePolicies: %w", err)
	}
	return nil
}

// keyOf is the Headscale that a HeadscalePolicy is for.
func keyOf(policy *v1beta1.HeadscalePolicy) client.ObjectKey {
	return client.ObjectKey{Namespace: policy.Namespace, Name: policy.Spec.HeadscaleRef}
}

// indexed is the value by which a HeadscalePolicy is found.
func indexed(object client.Object) []string {
	policy, ok := object.(*v1beta1.HeadscalePolicy)
	if !ok {
		return nil
	}
	return []string{keyOf(policy).String()}
}

// headscaleOf asks to reconcile the Headscale that a HeadscalePolicy is for.
func headscaleOf(_ context.Context, object client.Object) []reconcile.Request {
	policy, ok := object.(*v1beta1.HeadscalePolicy)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: keyOf(policy)}}
}

// list lists the HeadscalePolicies of a Headscale. They are not to be changed.
func (r *Reconciler) list(ctx context.Context, of client.ObjectKey) ([]*v1beta1.HeadscalePolicy, error) {
	listed := &v1beta1.HeadscalePolicyList{}
	if err := r.Client.List(ctx, listed, client.MatchingFields{index: of.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing HeadscalePolicies: %w", err)
	}
	policies := make([]*v1beta1.HeadscalePolicy, len(listed.Items))
	for i := range listed.Items {
		policies[i] = &listed.Items[i]
	}
	return policies, nil
}

// firstOf is one of the HeadscalePolicies of a Headscale, which stands for all of them.
func (r *Reconciler) firstOf(ctx context.Context, of client.ObjectKey) ([]client.Object, error) {
	policies, err := r.list(ctx, of)
	if err != nil || len(policies) == 0 {
		return nil, err
	}
	return []client.Object{policies[0]}, nil
}

// differs reports whether the policy of a Headscale is another one.
func differs(_ client.Object, before, after *instance.Snapshot) bool {
	return before.Policy().Text != after.Policy().Text
}

// resetHeadscale asks to reconcile a Headscale that has changed. It is asked again, also where that
// failed before.
func (r *Reconciler) resetHeadscale(_ context.Context, object client.Object) []reconcile.Request {
	return r.reset(client.ObjectKeyFromObject(object))
}

// resetPod asks to reconcile the Headscale that a pod is for.
func (r *Reconciler) resetPod(_ context.Context, pod client.Object) []reconcile.Request {
	return r.reset(client.ObjectKey{Namespace: pod.GetNamespace(), Name: resources.InstanceOf(pod.GetLabels())})
}

// reset asks to reconcile a Headscale.
func (r *Reconciler) reset(of client.ObjectKey) []reconcile.Request {
	r.Instances.Reset(of)
	return []reconcile.Request{{NamespacedName: of}}
}

// headscaleMatters reports a change of a Headscale on which its policy depends. Its condition Ready
// stands for its pod and for its key.
var headscaleMatters = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, isHeadscale := e.ObjectOld.(*v1beta1.Headscale)
	after, isOne := e.ObjectNew.(*v1beta1.Headscale)
	return isHeadscale && isOne && (before.Generation != after.Generation || !equality.Semantic.DeepEqual(whatMatters(before), whatMatters(after)))
}}

func whatMatters(hs *v1beta1.Headscale) any {
	return []any{hs.DeletionTimestamp.IsZero(), hs.Status.Version, status.ReasonOf(hs.Status.Conditions, v1beta1.ConditionReady)}
}

// podMatters reports a pod that has become another one, or can be asked, or no longer.
var podMatters = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, isPod := e.ObjectOld.(*corev1.Pod)
	after, isOne := e.ObjectNew.(*corev1.Pod)
	return isPod && isOne && (before.UID != after.UID || before.Status.PodIP != after.Status.PodIP || instance.IsReady(before) != instance.IsReady(after))
}}
