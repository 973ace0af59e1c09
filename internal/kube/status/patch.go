package status

import (
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/kube/kubeapi"
)

// Patch writes the status of an object if describe changes it. It compares with the cached object
// first, and then, because the cache may be stale, with the live one. statusOf returns a pointer to
// the status. Only the status is compared and copied, and describe may read and change only the
// status: a spec may be as large as a request. Patch returns what identifies the object with the
// status before and after the change, and nil where nothing was to be written, or where the object
// was deleted in the meantime.
func Patch[O client.Object](ctx context.Context, live client.Reader, writer client.StatusClient, cached O, fieldManager string, statusOf func(O) any, describe func(O)) (before, after O, err error) {
	var none O
	if before, after, err = change(cached, statusOf, describe); err != nil {
		return none, none, err
	}
	if equality.Semantic.DeepEqual(statusOf(before), statusOf(after)) {
		return none, none, nil
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
