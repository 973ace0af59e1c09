package status

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/kube/kubeapi"
)

const (
	// maxWritten is of how many objects Patch knows which status it has written last. It is more than are written
	// while a cache catches up.
	maxWritten = 10_000
	// writtenTTL is for how long it knows that. It is longer than a cache takes to catch up.
	writtenTTL = time.Hour
)

// written are the statuses that this process has written. UIDs are unique, so there is one for all.
var written = writes{versions: cache.NewLRUExpireCache(maxWritten)}

// writes has the resource version of each status that was written, by the object's UID, until the cache has it.
type writes struct {
	lock     sync.Mutex
	versions *cache.LRUExpireCache
}

// note notes a status that was written.
func (w *writes) note(uid types.UID, version string) {
	w.lock.Lock()
	defer w.lock.Unlock()
	if !w.isNewerLocked(uid, version) {
		w.versions.Add(uid, version, writtenTTL)
	}
}

// isNewer reports whether the status that was written last is newer than an object of the cache. What the cache has is
// not kept any longer.
func (w *writes) isNewer(cached client.Object) bool {
	w.lock.Lock()
	defer w.lock.Unlock()
	newer := w.isNewerLocked(cached.GetUID(), cached.GetResourceVersion())
	if !newer {
		w.versions.Remove(cached.GetUID())
	}
	return newer
}

// isNewerLocked reports whether what is noted is newer than a resource version, or cannot be compared with it.
func (w *writes) isNewerLocked(uid types.UID, version string) bool {
	noted, known := w.versions.Get(uid)
	if !known {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(fmt.Sprint(noted), version)
	return err != nil || order > 0
}

// IsBehind reports whether an object of the cache is older than the status of it that Patch has written last.
func IsBehind(cached client.Object) bool { return written.isNewer(cached) }

// Patch writes the status of an object if describe changes it. It compares with the cached object
// first, and then, because the cache may be stale, with the live one. With a cached object that is older
// than the status written last it does not compare: that one may be as described while the live one is
// not, and no event would lead to another reconcile. statusOf returns a pointer to the status. Only the
// status is compared and copied, and describe may read and change only the status: a spec may be as large
// as a request. Patch returns what identifies the object with the status before and after the change, and
// nil where nothing was to be written, or where the object was deleted in the meantime.
func Patch[O client.Object](ctx context.Context, live client.Reader, writer client.StatusClient, cached O, fieldManager string, statusOf func(O) any, describe func(O)) (before, after O, err error) {
	var none O
	if !IsBehind(cached) {
		if before, after, err = change(cached, statusOf, describe); err != nil {
			return none, none, err
		}
		if equality.Semantic.DeepEqual(statusOf(before), statusOf(after)) {
			return none, none, nil
		}
	}
	current, err := kubeapi.NewLike(cached)
	if err != nil {
		return none, none, err
	}
	if err := live.Get(ctx, client.ObjectKeyFromObject(cached), current); err != nil {
		return none, none, wrapUnlessGone(err, "reading the object to write its status")
	}
	if current.GetUID() != cached.GetUID() {
		return none, none, nil
	}
	if before, after, err = change(current, statusOf, describe); err != nil {
		return none, none, err
	}
	if equality.Semantic.DeepEqual(statusOf(before), statusOf(after)) {
		return none, none, nil
	}
	sent, err := copyOf(after)
	if err != nil {
		return none, none, err
	}
	if err := writer.Status().Patch(ctx, sent, client.MergeFrom(before), client.FieldOwner(fieldManager)); err != nil {
		return none, none, wrapUnlessGone(err, "writing the status")
	}
	written.note(cached.GetUID(), sent.GetResourceVersion())
	return before, after, nil
}

// change returns what identifies an object with its status, before and after describe.
func change[O client.Object](object O, statusOf func(O) any, describe func(O)) (before, after O, err error) {
	bare, err := kubeapi.BareLike(object)
	if err != nil {
		return bare, bare, err
	}
	reflect.ValueOf(statusOf(bare)).Elem().Set(reflect.ValueOf(statusOf(object)).Elem())
	if before, err = copyOf(bare); err != nil {
		return bare, bare, err
	}
	if after, err = copyOf(bare); err != nil {
		return bare, bare, err
	}
	describe(after)
	return before, after, nil
}

// copyOf is a deep copy of an object.
func copyOf[O client.Object](object O) (O, error) {
	duplicate, ok := object.DeepCopyObject().(O)
	if !ok {
		return duplicate, fmt.Errorf("a copy of a %T is of another type", object)
	}
	return duplicate, nil
}

// wrapUnlessGone adds what was tried to an error. That an object was deleted in the meantime
// is none.
func wrapUnlessGone(err error, action string) error {
	if client.IgnoreNotFound(err) == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}
