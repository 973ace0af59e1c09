package headscale

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// concurrency is how many Headscales are looked after at once. A pass mostly waits for
// etcd to bring a write to its disk; writes that wait together get there together.
const concurrency = 16

// passTimeout ends a pass that hangs.
const passTimeout = time.Minute

// indexSecretName finds the Headscales that manage a Secret of some name, and
// indexRoleSecret the Roles that allow it.
const (
	indexSecretName = "spec.api_key.secret_name"
	indexRoleSecret = "rules.resourceNames"
)

// CacheOptions limits the cache to Headscales and to objects with our labels, and
// to the given namespaces, or to none where there are none given.
func CacheOptions(namespaces []string) cache.Options {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{v1beta1.LabelManagedBy: v1beta1.ManagedBy})}
	keys := cache.ByObject{
		Label: labels.SelectorFromSet(labels.Set{
			v1beta1.LabelManagedBy: v1beta1.ManagedBy,
			v1beta1.LabelComponent: v1beta1.ComponentAPIKey,
		}),
		Transform: stripSecret,
	}
	claims := cache.ByObject{Label: ours.Label, Transform: cache.TransformStripManagedFields()}
	options := cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.PersistentVolumeClaim{}: claims,
		&appsv1.StatefulSet{}:           ours,
		&corev1.ConfigMap{}:             ours,
		&corev1.Secret{}:                keys,
		&corev1.Service{}:               ours,
		&corev1.ServiceAccount{}:        ours,
		&corev1.Pod{}:                   {Label: ours.Label, Transform: stripPod},
		&rbacv1.Role{}:                  ours,
		&rbacv1.RoleBinding{}:           ours,
		&v1beta1.Headscale{}:            {Transform: cache.TransformStripManagedFields()},
	}}
	for _, namespace := range namespaces {
		if options.DefaultNamespaces == nil {
			options.DefaultNamespaces = map[string]cache.Config{}
		}
		options.DefaultNamespaces[namespace] = cache.Config{}
	}
	return options
}

// stripPod leaves of a pod what its state is judged by.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			Labels: pod.Labels, OwnerReferences: pod.OwnerReferences,
			CreationTimestamp: pod.CreationTimestamp, DeletionTimestamp: pod.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{NodeName: pod.Spec.NodeName},
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, Reason: pod.Status.Reason, Message: pod.Status.Message, Conditions: pod.Status.Conditions,
			ContainerStatuses: pod.Status.ContainerStatuses, InitContainerStatuses: pod.Status.InitContainerStatuses,
		},
	}, nil
}

// SetupWithManager starts watching with the manager.
func (r *HeadscaleReconciler) SetupWithManager(ctx context.Context, m manager.Manager) error {
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
	if r.watches, err = newReferenceWatches(ctx, m.GetConfig(), m.GetHTTPClient()); err != nil {
		return fmt.Errorf("making a client for metadata: %w", err)
	}
	asked := builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))
	changed := builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})
	return builder.ControllerManagedBy(m).
		Named("headscale").
		For(&v1beta1.Headscale{}, asked).
		Owns(&appsv1.StatefulSet{}, changed).
		Owns(&corev1.ConfigMap{}, changed).
		Owns(&corev1.Service{}, changed).
		Owns(&corev1.ServiceAccount{}, changed).
		Owns(&rbacv1.Role{}, changed).
		Owns(&rbacv1.RoleBinding{}, changed).
		Watches(&rbacv1.Role{}, handler.EnqueueRequestsFromMapFunc(r.waitingFor), changed).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(instanceOf), changed).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(instanceOf), changed).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.managersOf), changed).
		WatchesRawSource(source.Channel(r.watches.events, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency, ReconciliationTimeout: passTimeout}).
		Complete(r)
}

// secretNameOf is the name of the Secret that a Headscale manages, if it does.
func secretNameOf(object client.Object) []string {
	headscale, ok := object.(*v1beta1.Headscale)
	if !ok || !headscale.Spec.APIKey.Managed() {
		return nil
	}
	return []string{headscale.Spec.APIKey.EffectiveSecretName()}
}

// instanceOf finds the Headscale that a pod or a claim says it is for.
func instanceOf(_ context.Context, object client.Object) []reconcile.Request {
	name := resources.InstanceOf(object.GetLabels())
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: object.GetNamespace(), Name: name}}}
}

// managersOf finds the Headscales whose API key a Secret holds. A list that fails
// here is one of the cache's own, which does not fail once it has started.
func (r *HeadscaleReconciler) managersOf(ctx context.Context, secret client.Object) []reconcile.Request {
	headscales, err := r.listManagers(ctx, secret.GetNamespace(), secret.GetName())
	if err != nil {
		return nil
	}
	var requests []reconcile.Request
	for i := range headscales {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&headscales[i])})
	}
	return requests
}

// waitingFor finds the Headscales that want a Secret which a Role is for. With the Role
// of another that lost it, their turn may have come.
func (r *HeadscaleReconciler) waitingFor(ctx context.Context, role client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, name := range secretsOf(role) {
		secret := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: role.GetNamespace(), Name: name}}
		requests = append(requests, r.managersOf(ctx, secret)...)
	}
	return requests
}

// listManagers lists the Headscales in a namespace that manage the Secret of a name.
func (r *HeadscaleReconciler) listManagers(ctx context.Context, namespace, secretName string) ([]v1beta1.Headscale, error) {
	headscales := &v1beta1.HeadscaleList{}
	err := r.Client.List(ctx, headscales, client.InNamespace(namespace), client.MatchingFields{indexSecretName: secretName})
	if err != nil {
		return nil, fmt.Errorf("listing the Headscales that manage Secret %s: %w", secretName, err)
	}
	return headscales.Items, nil
}
