package headscale

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/refwatch"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// maxConcurrentReconciles is how many Headscales are reconciled at once. A reconcile mostly
// waits for etcd to bring a write to its disk; writes that wait together get there together. With
// half as many, the processors are not always busy: docs/decisions/2026-11-28-reads-before-a-create.md.
const maxConcurrentReconciles = 32

// reconcileTimeout ends a reconcile that hangs.
const reconcileTimeout = time.Minute

// indexSecretName finds the Headscales that manage a Secret of some name, and
// indexRoleSecret the Roles that allow it.
const (
	indexSecretName = "spec.api_key.secret_name"
	indexRoleSecret = "rules.resourceNames"
)

// SetupWithManager starts watching with the manager.
func (r *Reconciler) SetupWithManager(ctx context.Context, m manager.Manager) error {
	err := m.GetFieldIndexer().IndexField(ctx, &v1beta1.Headscale{}, indexSecretName, secretNameOf)
	if err != nil {
		return fmt.Errorf("indexing Headscales by Secret: %w", err)
	}
	if err := m.GetFieldIndexer().IndexField(ctx, &rbacv1.Role{}, indexRoleSecret, secretsOf); err != nil {
		return fmt.Errorf("indexing Roles by Secret: %w", err)
	}
	if r.Events == nil {
		r.Events = m.GetEventRecorder(FieldManager)
	}
	if r.watches, err = refwatch.New(ctx, m.GetConfig(), m.GetHTTPClient(), r.AllNamespaces); err != nil {
		return fmt.Errorf("setting up the watches of references: %w", err)
	}
	r.prober = newServerProber(ctx)
	r.backups = newBackupWatcher(ctx, r.Now)
	requested := builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, sizeChanged))
	changed := builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})
	return builder.ControllerManagedBy(m).
		Named("headscale").
		For(&v1beta1.Headscale{}, requested).
		Owns(&appsv1.StatefulSet{}, changed).
		Owns(&batchv1.Job{}, changed).
		Owns(&corev1.ConfigMap{}, changed).
		Owns(&corev1.Service{}, changed).
		Owns(&corev1.ServiceAccount{}, changed).
		Owns(&rbacv1.Role{}, changed).
		Owns(&rbacv1.RoleBinding{}, changed).
		Watches(&rbacv1.Role{}, handler.EnqueueRequestsFromMapFunc(r.waitingFor), changed).
		Watches(&v1beta1.Headscale{}, handler.EnqueueRequestsFromMapFunc(r.waitingFor), builder.WithPredicates(leavesSecret)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(instanceOf), changed).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(headscaleOfClaim), changed).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.managersOf), changed).
		WatchesRawSource(source.Channel(r.watches.Events(), &handler.EnqueueRequestForObject{})).
		WatchesRawSource(source.Channel(r.prober.events, &handler.EnqueueRequestForObject{})).
		WatchesRawSource(source.Channel(r.backups.events, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: maxConcurrentReconciles, ReconciliationTimeout: reconcileTimeout,
			RateLimiter: status.NewRateLimiter(), RecoverPanic: ptr.To(true),
		}).
		Complete(r)
}

// sizeChanged selects a Headscale whose labels or annotations have become too many, or few
// enough. (In the cache it has none of them while it is too large.)
var sizeChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*v1beta1.Headscale)
	after, isOne := e.ObjectNew.(*v1beta1.Headscale)
	return ok && isOne && before.TooLarge() != after.TooLarge()
}}

// leavesSecret selects a Headscale that is gone, or that manages another Secret than before.
var leavesSecret = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		return !slices.Equal(secretNameOf(e.ObjectOld), secretNameOf(e.ObjectNew))
	},
	GenericFunc: func(event.GenericEvent) bool { return false },
}

// secretNameOf is the name of the Secret that a Headscale manages, if it does.
func secretNameOf(object client.Object) []string {
	headscale, ok := object.(*v1beta1.Headscale)
	if !ok || !headscale.Spec.APIKey.Managed() {
		return nil
	}
	return []string{headscale.Spec.APIKey.EffectiveSecretName()}
}

// instanceOf finds the Headscale that a pod says it is for.
func instanceOf(_ context.Context, pod client.Object) []reconcile.Request {
	return requestFor(pod.GetNamespace(), resources.InstanceOf(pod.GetLabels()))
}

// headscaleOfClaim finds the Headscale whose data volume a claim is for.
func headscaleOfClaim(_ context.Context, claim client.Object) []reconcile.Request {
	return requestFor(claim.GetNamespace(), resources.HeadscaleOfClaim(claim.GetName()))
}

// requestFor asks to reconcile the Headscale of a name, if there is a name.
func requestFor(namespace, name string) []reconcile.Request {
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: namespace, Name: name}}}
}

// managersOf finds the Headscales whose API key a Secret holds, or whose sidecar has rights
// on it. A list that fails here is one of the cache's own, which does not fail once it has
// started.
func (r *Reconciler) managersOf(ctx context.Context, secret client.Object) []reconcile.Request {
	managers, err := r.listManagers(ctx, secret.GetNamespace(), secret.GetName())
	if err != nil {
		return nil
	}
	withRights, err := r.listWithRights(ctx, client.ObjectKeyFromObject(secret))
	if err != nil {
		return nil
	}
	var requests []reconcile.Request
	for _, c := range slices.Concat(managers, withRights) {
		requests = append(requests, requestFor(secret.GetNamespace(), c.name)...)
	}
	return requests
}

// waitingFor finds the Headscales that want a Secret which a Role is for, or which another Headscale managed. With
// the end of either, whichever the cache has last, their turn may have come.
func (r *Reconciler) waitingFor(ctx context.Context, object client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, name := range append(secretsOf(object), secretNameOf(object)...) {
		secret := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: object.GetNamespace(), Name: name}}
		requests = append(requests, r.managersOf(ctx, secret)...)
	}
	return requests
}
