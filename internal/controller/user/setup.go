package user

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

// maxConcurrentReconciles is how many HeadscaleUsers are reconciled at once. A reconcile mostly
// waits for the API server, or for Headscale, which is asked by one at a time.
const maxConcurrentReconciles = 16

// index finds the HeadscaleUsers of a Headscale: all, those that want a username, and those that
// have noted a user's id.
const index = "headscale"

// CachedObjects says what the cache holds for this controller.
func CachedObjects() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{&v1beta1.HeadscaleUser{}: {Transform: strip}}
}

// strip leaves of the metadata of a HeadscaleUser what is read: anyone may write as much there as
// a request has room for. (What is changed of it is changed as the API server has it.)
func strip(object any) (any, error) {
	user, ok := object.(*v1beta1.HeadscaleUser)
	if !ok {
		return object, nil
	}
	kept := user.ObjectMeta
	user.ManagedFields, user.Labels, user.OwnerReferences, user.Annotations, user.Finalizers = nil, nil, nil, nil, nil
	if mark := markOf(&v1beta1.HeadscaleUser{ObjectMeta: kept}); mark != "" {
		user.Annotations = map[string]string{v1beta1.AnnotationCreating: mark}
	}
	for _, finalizer := range kept.Finalizers {
		if finalizer == v1beta1.FinalizerUser {
			user.Finalizers = []string{finalizer}
		}
	}
	return user, nil
}

// maxMark is the longest value of AnnotationCreating, in bytes: a UID, an id and a username.
const maxMark = 36 + 1 + 20 + 1 + 4*255

// SetupWithManager starts watching with the manager.
func (r *Reconciler) SetupWithManager(ctx context.Context, m manager.Manager) error {
	if err := m.GetFieldIndexer().IndexField(ctx, &v1beta1.HeadscaleUser{}, index, indexed); err != nil {
		return fmt.Errorf("indexing HeadscaleUsers: %w", err)
	}
	if r.Events == nil {
		r.Events = m.GetEventRecorder(fieldManager)
	}
	r.kind = &instance.Kind{Objects: r.objectsOf, Differs: differs, NeedsNodes: nodesMatter, Workers: maxConcurrentReconciles}
	looked := r.Instances.AddKind(r.kind)
	b := builder.ControllerManagedBy(m).
		Named("headscaleuser").
		For(&v1beta1.HeadscaleUser{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1beta1.HeadscaleUser{}, handler.EnqueueRequestsFromMapFunc(r.rivalsOf), builder.WithPredicates(wantsOrGone)).
		Watches(&v1beta1.Headscale{}, handler.EnqueueRequestsFromMapFunc(r.usersOfHeadscale), builder.WithPredicates(instance.HeadscaleMatters)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.usersOfPod), builder.WithPredicates(instance.PodMatters)).
		WatchesRawSource(source.Channel(looked, &handler.EnqueueRequestForObject{}))
	if r.Instances.AllNamespaces {
		b = b.WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.usersIn), builder.WithPredicates(instance.NamespaceMatters))
	}
	return b.WithOptions(controller.Options{
		MaxConcurrentReconciles: maxConcurrentReconciles, ReconciliationTimeout: reconcileTimeout,
		RateLimiter: status.NewRateLimiter(), RecoverPanic: ptr.To(true),
	}).Complete(r)
}
