package preauthkey

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// maxConcurrentReconciles is how many HeadscalePreAuthKeys are reconciled at once. A reconcile mostly
// waits for the API server, or for Headscale, which is asked by one at a time.
const maxConcurrentReconciles = 16

// CachedObjects says what the cache holds for this controller, besides the metadata of its Secrets.
func CachedObjects() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{&v1beta1.HeadscalePreAuthKey{}: {Transform: strip}}
}

// strip leaves of the metadata of a HeadscalePreAuthKey what is read: anyone may write as much there
// as a request has room for. (What is changed of it is changed as the API server has it.)
func strip(object any) (any, error) {
	key, ok := object.(*v1beta1.HeadscalePreAuthKey)
	if !ok {
		return object, nil
	}
	held := hasFinalizer(key)
	key.ManagedFields, key.Labels, key.OwnerReferences, key.Annotations, key.Finalizers = nil, nil, nil, nil, nil
	if held {
		key.Finalizers = []string{v1beta1.FinalizerPreAuthKey}
	}
	return key, nil
}

// kind is what Instances know of HeadscalePreAuthKeys.
func (r *Reconciler) kind() *instance.Kind {
	if r.ownKind == nil {
		r.ownKind = &instance.Kind{
			Objects: r.objectsOf, Differs: differs, Concerns: concerns, NeedsNodes: func(client.Object) bool { return false }, NeedsKeys: true, Workers: maxConcurrentReconciles,
		}
	}
	return r.ownKind
}

// SetupWithManager starts watching with the manager.
func (r *Reconciler) SetupWithManager(ctx context.Context, m manager.Manager) error {
	if err := m.GetFieldIndexer().IndexField(ctx, &v1beta1.HeadscalePreAuthKey{}, index, indexed); err != nil {
		return fmt.Errorf("indexing HeadscalePreAuthKeys: %w", err)
	}
	if r.Events == nil {
		r.Events = m.GetEventRecorder(fieldManager)
	}
	looked := r.Instances.AddKind(r.kind())
	b := builder.ControllerManagedBy(m).
		Named("headscalepreauthkey").
		For(&v1beta1.HeadscalePreAuthKey{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1beta1.HeadscaleUser{}, handler.EnqueueRequestsFromMapFunc(r.keysOfUser), builder.WithPredicates(userMatters)).
		Watches(&v1beta1.Headscale{}, handler.EnqueueRequestsFromMapFunc(r.keysOfHeadscale), builder.WithPredicates(instance.HeadscaleMatters)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.keysOfPod), builder.WithPredicates(instance.PodMatters)).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.keysOfSecret), builder.WithPredicates(secretMatters)).
		WatchesRawSource(source.Channel(looked, &handler.EnqueueRequestForObject{}))
	if r.Instances.AllNamespaces {
		b = b.WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.keysIn), builder.WithPredicates(instance.NamespaceMatters))
	}
	return b.WithOptions(controller.Options{
		MaxConcurrentReconciles: maxConcurrentReconciles, ReconciliationTimeout: reconcileTimeout,
		RateLimiter: status.NewRateLimiter(), RecoverPanic: ptr.To(true),
	}).Complete(r)
}
