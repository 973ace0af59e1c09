package headscale

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/refwatch"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// referenced is what is known of the objects that a Headscale refers to.
type referenced struct {
	// versions are those of the objects, by which data that was read before need not be read
	// again.
	versions string
	// parts are digests of the entries that the pod gets, by the object that has them.
	parts map[string]string
	// digest is that of all parts, or "" where the Headscale refers to nothing.
	digest string
}

// referenceMemory remembers what the objects had that Headscales refer to. Only digests are
// kept.
type referenceMemory struct {
	lock sync.Mutex
	// read is what was read last, and applied is what the pod was made with.
	read, applied map[client.ObjectKey]*referenced
}

// forget drops what is kept of a Headscale.
func (m *referenceMemory) forget(headscale client.ObjectKey) {
	m.lock.Lock()
	defer m.lock.Unlock()
	delete(m.read, headscale)
	delete(m.applied, headscale)
}

// remember keeps what was read for a Headscale. It returns what its pod was made with, which is
// what was read where the pod says so, and nil where that is not known.
func (m *referenceMemory) remember(headscale client.ObjectKey, read *referenced, ofPod string) *referenced {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.read == nil {
		m.read, m.applied = map[client.ObjectKey]*referenced{}, map[client.ObjectKey]*referenced{}
	}
	for _, made := range []*referenced{m.read[headscale], read} {
		if made != nil && made.digest == ofPod {
			m.applied[headscale] = made
		}
	}
	m.read[headscale] = read
	if applied := m.applied[headscale]; applied != nil && applied.digest == ofPod {
		return applied
	}
	return nil
}

// last is what was read last for a Headscale, or nil.
func (m *referenceMemory) last(headscale client.ObjectKey) *referenced {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.read[headscale]
}

// referencesDigest is the digest of what the Headscale refers to, for its pod: of the data as
// it is, or, while a pod that is known to be made with other data is being started, of those.
// Then what is observed says what the Headscale waits for, and else what the pod is replaced
// for. A digest that was never read is not waited for: somebody may have written it by hand.
func (r *Reconciler) referencesDigest(ctx context.Context, s scope, o *observed) (string, error) {
	now, err := r.readReferences(ctx, s.headscale)
	if err != nil {
		return "", err
	}
	ofPod := digestOfPod(o.statefulSet)
	applied := r.references.remember(client.ObjectKeyFromObject(s.headscale), now, ofPod)
	changed := changedParts(applied, now)
	if ofPod == "" || ofPod == now.digest || len(changed) == 0 {
		return now.digest, nil
	}
	if applied != nil && starting(s, *o) {
		o.waiting = fmt.Sprintf("%s changed, and pod %[2]s is replaced once it is ready or has failed; kubectl delete pod %[2]s replaces it now",
			strings.Join(changed, ", "), resources.PodName(s.headscale))
		return ofPod, nil
	}
	o.replaced, o.replacedUnsure = changed, applied == nil
	return now.digest, nil
}

// digestOfPod is the digest of what the pod is made with, or "" where nothing is known.
func digestOfPod(statefulSet *appsv1.StatefulSet) string {
	if statefulSet == nil {
		return ""
	}
	return statefulSet.Spec.Template.Annotations[resources.AnnotationReferences]
}

// changedParts names the objects that have other data than the pod was made with: none where
// the pod was made with other objects, and all where it is not known what it was made with.
func changedParts(applied, now *referenced) []string {
	if applied == nil {
		return slices.Sorted(maps.Keys(now.parts))
	}
	var changed []string
	for part, digest := range now.parts {
		was, known := applied.parts[part]
		if !known {
			return nil
		}
		if was != digest {
			changed = append(changed, part)
		}
	}
	slices.Sort(changed)
	return changed
}

// starting tells whether the pod that the StatefulSet asks for is on its way to become ready,
// with no sign of trouble: to replace it now would have it begin again. Where there is none, or
// only one that ends, the next is made with the change.
func starting(s scope, o observed) bool {
	if o.pod == nil || !o.pod.DeletionTimestamp.IsZero() {
		return false
	}
	available := availability(s, o)
	if available.True {
		return !rollout(o).True
	}
	return available.Reason == v1beta1.ReasonProgressing && !available.Stalled
}

// recordReplacement tells for which objects the pod is replaced, by an event for each.
func (r *Reconciler) recordReplacement(s scope, o observed) {
	what := "changed"
	if o.replacedUnsure {
		what = "may have changed while the operator was not running"
	}
	for _, part := range o.replaced {
		kind, name, _ := strings.Cut(part, " ")
		status.Record(r.Events, s.headscale, status.Event{
			Action: status.ActionReconcile, Reason: v1beta1.EventReferenceChanged,
			Related: &corev1.ObjectReference{APIVersion: corev1.SchemeGroupVersion.String(), Kind: kind, Namespace: s.headscale.Namespace, Name: name},
			Note:    fmt.Sprintf("%s %s: replacing pod %s", part, what, resources.PodName(s.headscale)),
		})
	}
}

// readReferences reads what the Headscale refers to. An object or an entry that does not exist
// is for the user to make, before the pod is touched: the pod could not start without it.
//
// The versions of the objects are asked of the API server each time, because the cache holds
// the operator's own objects only. Their data is read only when a version is new.
func (r *Reconciler) readReferences(ctx context.Context, headscale *v1beta1.Headscale) (*referenced, error) {
	key := client.ObjectKeyFromObject(headscale)
	references := resources.References(headscale)
	now := &referenced{parts: map[string]string{}}
	if len(references) == 0 {
		return now, nil
	}
	objects := make([]*metav1.PartialObjectMetadata, len(references))
	var versions strings.Builder
	for i := range references {
		var err error
		if objects[i], err = r.readReferenced(ctx, headscale.Namespace, &references[i]); err != nil {
			return nil, err
		}
		fmt.Fprintf(&versions, "%s %q@%s\n", &references[i], references[i].Keys, versionOf(objects[i]))
	}
	now.versions = versions.String()
	if last := r.references.last(key); last != nil && last.versions == now.versions {
		return last, nil
	}
	var all strings.Builder
	for i := range references {
		digest, err := r.digestOf(ctx, &references[i], objects[i])
		if err != nil {
			return nil, err
		}
		if references[i].Live() {
			digest = ""
		}
		fmt.Fprintf(&all, "%s %s %s\n", references[i].Field, &references[i], digest)
		now.parts[references[i].String()] += digest
	}
	digest := sha256.Sum256([]byte(all.String()))
	now.digest = hex.EncodeToString(digest[:])
	return now, nil
}

// readReferenced reads the metadata of an object that is referred to: nil for one that does
// not exist and need not.
func (r *Reconciler) readReferenced(ctx context.Context, namespace string, reference *resources.Reference) (*metav1.PartialObjectMetadata, error) {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(reference.Kind))
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: reference.Name}, object)
	switch {
	case apierrors.IsNotFound(err) && reference.Optional:
		return nil, nil
	case apierrors.IsNotFound(err):
		return nil, &resources.InvalidError{Field: reference.Field, Message: fmt.Sprintf(
			"names %s, which does not exist: create it, or name another", reference)}
	case err != nil:
		return nil, fmt.Errorf("reading the metadata of %s: %w", reference, err)
	default:
		return object, nil
	}
}

// isAPIKey tells whether an object holds an API key. The operator does not read those, and
// what an API Key Manager writes there replaces no pod.
func isAPIKey(object *metav1.PartialObjectMetadata) bool {
	return object.Kind == resources.KindSecret && v1beta1.IsAPIKeySecret(object.Labels)
}

// versionOf changes with the data of an object, and with its metadata.
func versionOf(object *metav1.PartialObjectMetadata) string {
	if object == nil || isAPIKey(object) {
		return ""
	}
	return string(object.UID) + ":" + object.ResourceVersion
}

// digestOf reads the entries of an object that the pod gets and returns a digest of them, or
// "" where there is none to read. Its key is the object's UID, which nobody knows who may not
// read the object: the digest does not let others try out what a short password may be.
func (r *Reconciler) digestOf(ctx context.Context, reference *resources.Reference, object *metav1.PartialObjectMetadata) (string, error) {
	if object == nil || isAPIKey(object) {
		return "", nil
	}
	data, err := r.readData(ctx, reference.Kind, client.ObjectKeyFromObject(object))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", reference, err)
	}
	keys := reference.Keys
	if len(keys) == 0 {
		keys = slices.Sorted(maps.Keys(data))
	}
	digest := hmac.New(sha256.New, []byte(object.UID))
	for _, key := range keys {
		value, found := data[key]
		if !found && !reference.Optional {
			return "", &resources.InvalidError{Field: reference.Field, Message: fmt.Sprintf(
				"names the entry %q of %s, which does not have it: add it, or name another", key, reference)}
		}
		for _, part := range [][]byte{[]byte(key), value} {
			_ = binary.Write(digest, binary.BigEndian, uint64(len(part)))
			digest.Write(part)
		}
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// readData reads the data of a Secret or a ConfigMap. Nobody but digestOf may have it.
func (r *Reconciler) readData(ctx context.Context, kind string, key client.ObjectKey) (map[string][]byte, error) {
	if kind == resources.KindSecret {
		secret := &corev1.Secret{}
		err := r.Live.Get(ctx, key, secret)
		return secret.Data, err
	}
	object := &corev1.ConfigMap{}
	err := r.Live.Get(ctx, key, object)
	data := map[string][]byte{}
	maps.Copy(data, object.BinaryData)
	for name, value := range object.Data {
		data[name] = []byte(value)
	}
	return data, err
}

// watchedReferences names the objects to watch for some references.
func watchedReferences(references []resources.Reference) []refwatch.Reference {
	watched := make([]refwatch.Reference, 0, len(references))
	for _, reference := range references {
		resource := "secrets"
		if reference.Kind == resources.KindConfigMap {
			resource = "configmaps"
		}
		watched = append(watched, refwatch.Reference{Resource: resource, Name: reference.Name})
	}
	return watched
}
