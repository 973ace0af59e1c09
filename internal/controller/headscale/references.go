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
	// digests are those of the references, by their versions.
	digests map[string]string
	// digest is that of all parts, or "" where the Headscale refers to nothing.
	digest string
	// live is the digest of what Headscale reads again by itself, which is not in digest, or "".
	live string
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
	o.liveReferences = now.live
	if digestOfPod(o.statefulSet) != now.digest {
		if err := r.refreshStatefulSet(ctx, s, o); err != nil {
			return "", err
		}
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

// starting reports whether the pod that the StatefulSet asks for is on its way to become ready,
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

// recordReplacement reports for which objects the pod is replaced, by an event for each.
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
// the operator's own objects only. The data of an object are read only when its version is new.
func (r *Reconciler) readReferences(ctx context.Context, headscale *v1beta1.Headscale) (*referenced, error) {
	references := resources.References(headscale)
	now := &referenced{parts: map[string]string{}, digests: map[string]string{}}
	if len(references) == 0 {
		return now, nil
	}
	if err := resources.CheckReferences(references); err != nil {
		return nil, err
	}
	found, err := r.findReferences(ctx, headscale.Namespace, references)
	if err != nil {
		return nil, err
	}
	for i := range found {
		now.versions += found[i].version
	}
	last := r.references.last(client.ObjectKeyFromObject(headscale))
	switch {
	case last == nil:
		last = &referenced{}
	case last.versions == now.versions:
		return last, nil
	}
	var all strings.Builder
	for i := range found {
		digest, err := r.digestOf(ctx, found[i:], last)
		if err != nil {
			return nil, err
		}
		now.digests[found[i].version] = digest
		if found[i].Live() {
			now.live += digest
			digest = ""
		}
		fmt.Fprintf(&all, "%s %s %s\n", found[i].Field, &found[i].Reference, digest)
		now.parts[found[i].String()] += digest
	}
	digest := sha256.Sum256([]byte(all.String()))
	now.digest = hex.EncodeToString(digest[:])
	return now, nil
}

// foundReference is a reference with the object that it names.
type foundReference struct {
	resources.Reference
	// object is its metadata, nil where it does not exist and need not.
	object *metav1.PartialObjectMetadata
	// version changes with the reference and with the data of the object.
	version string
	// read is whether the data of the object were read. Then digest is that of the entries, or
	// err says what is wrong with them.
	read   bool
	digest string
	err    error
}

// findReferences reads the metadata of the objects that are referred to, of each once.
func (r *Reconciler) findReferences(ctx context.Context, namespace string, references []resources.Reference) ([]foundReference, error) {
	objects := map[string]*metav1.PartialObjectMetadata{}
	found := make([]foundReference, len(references))
	for i := range references {
		reference := &references[i]
		object := objects[reference.String()]
		if object == nil {
			var err error
			if object, err = r.readReferenced(ctx, namespace, reference); err != nil {
				return nil, err
			}
			objects[reference.String()] = object
		}
		found[i] = foundReference{Reference: *reference, object: object}
		found[i].version = fmt.Sprintf("%s %s %q %t@%s\n", reference.Field, reference, reference.Keys, reference.Optional, versionOf(object))
	}
	return found, nil
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

// isAPIKey reports whether an object holds an API key. The operator does not read those, and
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

// digestOf is the digest of the entries that the first of some references names, or "" where
// there is none to read. The data of an object are read once for all references to it, and not
// kept: there may be many large ones.
func (r *Reconciler) digestOf(ctx context.Context, found []foundReference, last *referenced) (string, error) {
	first := &found[0]
	if first.object == nil || isAPIKey(first.object) {
		return "", nil
	}
	if digest, known := last.digests[first.version]; known {
		return digest, nil
	}
	if !first.read {
		data, err := r.readData(ctx, first.Kind, client.ObjectKeyFromObject(first.object))
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", first, err)
		}
		for i := range found {
			if other := &found[i]; other.object == first.object {
				other.read = true
				other.digest, other.err = digestEntries(other, data)
			}
		}
	}
	return first.digest, first.err
}

// digestEntries is the digest of the entries that a reference names. Its key is the object's
// UID, which nobody knows who may not read the object: the digest does not let others try out
// what a short password may be.
func digestEntries(reference *foundReference, data map[string][]byte) (string, error) {
	keys := reference.Keys
	if len(keys) == 0 {
		keys = slices.Sorted(maps.Keys(data))
	}
	digest := hmac.New(sha256.New, []byte(reference.object.UID))
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
