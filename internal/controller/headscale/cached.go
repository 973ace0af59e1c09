package headscale

import (
	"encoding/json"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
	"infrado.cloud/headscale-operator/internal/kube/kubeapi"
	"infrado.cloud/headscale-operator/internal/resources"
)

// CachedObjects says what the cache holds for this controller: Headscales, and objects with
// the operator's labels. Pods and Secrets are reduced to the fields that are used, and objects
// that belong to no Headscale to their names. Anyone may create objects with these labels, and
// Headscales, as large as a request may be: what is kept of each is limited.
func CachedObjects() map[client.Object]cache.ByObject {
	ours := labels.Set{v1beta1.LabelManagedBy: v1beta1.ManagedBy}
	owned := cache.ByObject{Label: labels.SelectorFromSet(ours), Transform: stripForeign}
	return map[client.Object]cache.ByObject{
		&corev1.PersistentVolumeClaim{}: {Label: labels.SelectorFromSet(ours), Transform: stripClaim},
		&appsv1.StatefulSet{}:           owned,
		&corev1.ConfigMap{}:             owned,
		&corev1.Secret{}:                {Label: keySecrets(), Transform: stripSecret},
		&corev1.Service{}:               owned,
		&corev1.ServiceAccount{}:        owned,
		&batchv1.Job{}:                  {Label: labels.SelectorFromSet(ours), Transform: stripJob},
		&corev1.Pod{}:                   {Label: labels.SelectorFromSet(ours), Transform: stripPod},
		&rbacv1.Role{}:                  owned,
		&rbacv1.RoleBinding{}:           owned,
		&v1beta1.Headscale{}:            {Transform: stripHeadscale},
	}
}

// keySecrets selects the Secrets of API keys, and those of pre-auth keys and of private keys, of which
// the cache holds the metadata, too.
func keySecrets() labels.Selector {
	components, err := labels.NewRequirement(v1beta1.LabelComponent, selection.In, []string{v1beta1.ComponentAPIKey, v1beta1.ComponentPreAuthKey, v1beta1.ComponentIdentity})
	if err != nil {
		panic(err) // of constants
	}
	return labels.SelectorFromSet(labels.Set{v1beta1.LabelManagedBy: v1beta1.ManagedBy}).Add(*components)
}

// stripForeign leaves of an object that only has the operator's labels, and belongs to no
// Headscale, what shows that: anyone may create such objects, as large as they like.
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

// stripJob leaves of a Job what a preflight is judged by.
func stripJob(object any) (any, error) {
	job, ok := object.(*batchv1.Job)
	if !ok {
		return object, nil
	}
	metadata := keptMetadata(job)
	// They say why it is not gone. Where they are too many, they were left out before.
	metadata.Finalizers = job.GetFinalizers()
	return &batchv1.Job{ObjectMeta: metadata, Status: batchv1.JobStatus{Conditions: job.Status.Conditions}}, nil
}

// keptMetadata is the metadata that is kept of a pod, a claim or a Job.
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
// is not known, nothing, so that the API server is asked, unless it said of that version that it is up to date.
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
		if slices.Contains(resources.ContainerNames(), states[i].Name) {
			ours = append(ours, states[i])
		}
	}
	return ours
}
