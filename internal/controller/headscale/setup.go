package headscale

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
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
	"infrado.cloud/headscale-operator/internal/keystate"
	"infrado.cloud/headscale-operator/internal/kube/kubeapi"
	"infrado.cloud/headscale-operator/internal/kube/refwatch"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// maxConcurrentReconciles is how many Headscales are reconciled at once. A reconcile mostly
// waits for etcd to bring a write to its disk; writes that wait together get there together.
const maxConcurrentReconciles = 16

// reconcileTimeout ends a reconcile that hangs.
const reconcileTimeout = time.Minute

// indexSecretName finds the Headscales that manage a Secret of some name, and
// indexRoleSecret the Roles that allow it.
const (
	indexSecretName = "spec.api_key.secret_name"
	indexRoleSecret = "rules.resourceNames"
)

// CachedObjects says what the cache holds for this controller: Headscales, and objects with
// the operator's labels. Pods and Secrets are reduced to the fields that are used, and objects
// that belong to no Headscale to their names. Anyone may create objects with these labels, and
// Headscales, as large as a request may be: what is kept of each is limited.
func CachedObjects() map[client.Object]cache.ByObject {
	ours := labels.Set{v1beta1.LabelManagedBy: v1beta1.ManagedBy}
	keys := labels.Set{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey}
	owned := cache.ByObject{Label: labels.SelectorFromSet(ours), Transform: stripForeign}
	return map[client.Object]cache.ByObject{
		&corev1.PersistentVolumeClaim{}: {Label: labels.SelectorFromSet(ours), Transform: stripClaim},
		&appsv1.StatefulSet{}:           owned,
		&corev1.ConfigMap{}:             owned,
		&corev1.Secret{}:                {Label: labels.SelectorFromSet(keys), Transform: stripSecret},
		&corev1.Service{}:               owned,
		&corev1.ServiceAccount{}:        owned,
		&corev1.Pod{}:                   {Label: labels.SelectorFromSet(ours), Transform: stripPod},
		&rbacv1.Role{}:                  owned,
		&rbacv1.RoleBinding{}:           owned,
		&v1beta1.Headscale{}:            {Transform: stripHeadscale},
	}
}

// stripForeign leaves of an object that only has the operator's labels, and belongs to no
// Headscale, what tells that: anyone may create such objects, as large as they like.
func stripForeign(cached any) (any, error) {
	object, ok := cached.(client.Object)
	if !ok {
		return cached, nil
	}
	if belongsToHeadscale(object) {
		limitOwned(object)
		return cached, nil
	}
	bare, err := kubeapi.BareLike(object)
	if err != nil {
		return nil, err
	}
	bare.SetDeletionTimestamp(object.GetDeletionTimestamp())
	return bare, nil
}

// belongsToHeadscale reports whether a Headscale is the controller of an object, which has the
// name of one of its child objects: any number of others may name it as theirs.
func belongsToHeadscale(object client.Object) bool {
	owner := metav1.GetControllerOf(object)
	return owner != nil && owner.Kind == v1beta1.Kind && owner.APIVersion == v1beta1.GroupVersion.String() &&
		resources.IsChildName(owner.Name, object.GetName())
}

// stripHeadscale leaves of a Headscale that is larger than the limits what its status is about.
func stripHeadscale(object any) (any, error) {
	if headscale, ok := object.(*v1beta1.Headscale); ok {
		headscale.Shed()
	}
	return object, nil
}

// stripSecret leaves of the managed fields of a Secret who requested a rotation, and when.
func stripSecret(object any) (any, error) {
	if secret, ok := object.(metav1.Object); ok {
		keystate.StripManagedFields(secret)
		v1beta1.ShortenRotationRequest(secret.GetAnnotations())
		limitMetadata(secret)
	}
	return object, nil
}

// stripClaim leaves of a claim what the volume is judged by.
func stripClaim(object any) (any, error) {
	claim, ok := object.(*corev1.PersistentVolumeClaim)
	if !ok {
		return object, nil
	}
	stripped := &corev1.PersistentVolumeClaim{
		ObjectMeta: keptMetadata(claim),
		Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: claim.Spec.StorageClassName},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: claim.Status.Phase},
	}
	if size, requested := claim.Spec.Resources.Requests[corev1.ResourceStorage]; requested {
		stripped.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: size}
	}
	return stripped, nil
}

// keptMetadata is the metadata that is kept of a pod or a claim.
func keptMetadata(object metav1.Object) metav1.ObjectMeta {
	limitMetadata(object)
	return metav1.ObjectMeta{
		Namespace: object.GetNamespace(), Name: object.GetName(), UID: object.GetUID(), ResourceVersion: object.GetResourceVersion(),
		Labels: object.GetLabels(), Annotations: object.GetAnnotations(), OwnerReferences: object.GetOwnerReferences(),
		CreationTimestamp: object.GetCreationTimestamp(), DeletionTimestamp: object.GetDeletionTimestamp(),
	}
}

// maxOwned is how many bytes others may add to a child object for it to be kept as it is.
const maxOwned = 512 << 10

// limitOwned leaves out of a child object what others have added to it, where that is large: the
// operator compares what it has applied itself.
func limitOwned(object client.Object) {
	config, isConfig := object.(*corev1.ConfigMap)
	added := 0
	if sized, ok := object.(interface{ Size() int }); ok {
		added = sized.Size()
	}
	if isConfig {
		added -= len(config.Data[resources.ConfigFile])
	}
	if added <= maxOwned {
		return
	}
	limitMetadata(object)
	object.SetManagedFields(slices.DeleteFunc(object.GetManagedFields(), func(entry metav1.ManagedFieldsEntry) bool {
		return entry.Manager != FieldManager
	}))
	switch large := object.(type) {
	case *corev1.ConfigMap:
		large.Data, large.BinaryData = map[string]string{resources.ConfigFile: large.Data[resources.ConfigFile]}, nil
	case *corev1.ServiceAccount:
		large.Secrets, large.ImagePullSecrets = nil, nil
	case *appsv1.StatefulSet:
		large.Spec = onlyApplied(large)
	}
}

// onlyApplied is the part of a StatefulSet's spec that the operator has applied: where that
// is not known, nothing, so that the API server is asked.
func onlyApplied(live *appsv1.StatefulSet) appsv1.StatefulSetSpec {
	spec := appsv1.StatefulSetSpec{}
	applied, err := extractStatefulSet(live, FieldManager)
	if err != nil || applied.Spec == nil {
		return spec
	}
	text, err := json.Marshal(applied.Spec)
	if err != nil || json.Unmarshal(text, &spec) != nil {
		return appsv1.StatefulSetSpec{}
	}
	return spec
}

// maxMetadata is how many bytes of labels, annotations, owner references and finalizers are
// kept of an object that anyone may have written, whatever they are: Kubernetes' own components
// write some hundred. Of the ledger of a rotation, an entry of which has some sixty bytes, that
// much is kept in any case.
const maxMetadata = 16 << 10

// maxValue is how many bytes are kept of anything else in metadata that is larger.
const maxValue = 4 << 10

// limitMetadata leaves of the metadata of an object what is read, where all is too much.
func limitMetadata(object metav1.Object) {
	size := sizeOf(object.GetLabels()) + sizeOf(object.GetAnnotations())
	for _, finalizer := range object.GetFinalizers() {
		size += len(finalizer)
	}
	for _, owner := range object.GetOwnerReferences() {
		size += owner.Size()
	}
	if size <= maxMetadata {
		return
	}
	object.SetLabels(onlyRead(object.GetLabels()))
	object.SetAnnotations(onlyRead(object.GetAnnotations()))
	object.SetFinalizers(nil)
	object.SetOwnerReferences(onlyController(object))
}

// onlyController is the owner reference of the controller, if there is one.
func onlyController(object metav1.Object) []metav1.OwnerReference {
	owner := metav1.GetControllerOfNoCopy(object)
	if owner == nil {
		return nil
	}
	kept := *owner
	kept.Kind, kept.Name, kept.APIVersion = shorten(kept.Kind, maxValue), shorten(kept.Name, maxValue), shorten(kept.APIVersion, maxValue)
	kept.UID = types.UID(shorten(string(kept.UID), maxValue))
	return []metav1.OwnerReference{kept}
}

// shorten is the beginning of a text. It keeps no memory of the rest.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.Clone(text[:limit])
}

// sizeOf is the length of all keys and values.
func sizeOf(entries map[string]string) int {
	size := 0
	for key, value := range entries {
		size += len(key) + len(value)
	}
	return size
}

// onlyRead are the labels or annotations that the operator reads. A ledger that is cut within
// an entry is read without that one.
func onlyRead(entries map[string]string) map[string]string {
	read := map[string]string{}
	for _, key := range resources.MetadataKeys() {
		value, found := entries[key]
		switch {
		case !found:
		case key == v1beta1.AnnotationPending || key == v1beta1.AnnotationRetiring:
			read[key] = shorten(value, maxMetadata)
		default:
			read[key] = shorten(value, maxValue)
		}
	}
	return read
}

// stripPod leaves of a pod what its state is judged by.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	metadata := keptMetadata(pod)
	metadata.Annotations = nil
	return &corev1.Pod{
		ObjectMeta: metadata,
		Spec:       corev1.PodSpec{NodeName: pod.Spec.NodeName},
		Status: corev1.PodStatus{
			PodIP: pod.Status.PodIP, Phase: pod.Status.Phase, Reason: pod.Status.Reason, Message: pod.Status.Message, Conditions: pod.Status.Conditions,
			ContainerStatuses: onlyOurs(pod.Status.ContainerStatuses), InitContainerStatuses: onlyOurs(pod.Status.InitContainerStatuses),
		},
	}, nil
}

// onlyOurs are the states of the containers that the operator runs. There may be a thousand
// others.
func onlyOurs(states []corev1.ContainerStatus) []corev1.ContainerStatus {
	var ours []corev1.ContainerStatus
	for i := range states {
		if name := states[i].Name; name == resources.ContainerHeadscale || name == resources.ContainerManager {
			ours = append(ours, states[i])
		}
	}
	return ours
}

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
	requested := builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, sizeChanged))
	changed := builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})
	return builder.ControllerManagedBy(m).
		Named("headscale").
		For(&v1beta1.Headscale{}, requested).
		Owns(&appsv1.StatefulSet{}, changed).
		Owns(&corev1.ConfigMap{}, changed).
		Owns(&corev1.Service{}, changed).
		Owns(&corev1.ServiceAccount{}, changed).
		Owns(&rbacv1.Role{}, changed).
		Owns(&rbacv1.RoleBinding{}, changed).
		Watches(&rbacv1.Role{}, handler.EnqueueRequestsFromMapFunc(r.waitingFor), changed).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(instanceOf), changed).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(headscaleOfClaim), changed).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.managersOf), changed).
		WatchesRawSource(source.Channel(r.watches.Events(), &handler.EnqueueRequestForObject{})).
		WatchesRawSource(source.Channel(r.prober.events, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: maxConcurrentReconciles, ReconciliationTimeout: reconcileTimeout,
			RateLimiter: status.NewRateLimiter(), RecoverPanic: ptr.To(true),
		}).
		Complete(r)
}

// sizeChanged tells of a Headscale whose labels or annotations have become too many, or few
// enough. (In the cache it has none of them while it is too large.)
var sizeChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*v1beta1.Headscale)
	after, isOne := e.ObjectNew.(*v1beta1.Headscale)
	return ok && isOne && before.TooLarge() != after.TooLarge()
}}

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

// waitingFor finds the Headscales that want a Secret which a Role is for. With the Role
// of another that lost it, their turn may have come.
func (r *Reconciler) waitingFor(ctx context.Context, role client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, name := range secretsOf(role) {
		secret := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: role.GetNamespace(), Name: name}}
		requests = append(requests, r.managersOf(ctx, secret)...)
	}
	return requests
}

// listManagers lists the Headscales in a namespace that manage the Secret of a name.
func (r *Reconciler) listManagers(ctx context.Context, namespace, secretName string) ([]claimant, error) {
	headscales := &v1beta1.HeadscaleList{}
	err := r.Client.List(ctx, headscales, client.InNamespace(namespace), client.MatchingFields{indexSecretName: secretName},
		client.UnsafeDisableDeepCopy) // nothing here changes what is listed
	if err != nil {
		return nil, fmt.Errorf("listing the Headscales that manage Secret %s: %w", secretName, err)
	}
	managers := make([]claimant, len(headscales.Items))
	for i := range headscales.Items {
		managers[i] = claimantOf(&headscales.Items[i])
	}
	return managers, nil
}
