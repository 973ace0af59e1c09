package status

import (
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Patch writes the status of an object if it differs from what describe makes of it: first
// compared with the object from the cache and then, because the cache may be old, with the
// live one. statusOf returns a pointer to the status, which is all that is compared. Patch
// returns the object before and after the change, and nil where nothing was to be written, or
// where the object was deleted in the meantime.
func Patch[O client.Object](ctx context.Context, live client.Reader, writer client.StatusClient, cached O, fieldManager string, statusOf func(O) any, describe func(O)) (before, after O, err error) {
	var none O
	wanted, err := copyOf(cached)
	if err != nil {
		return none, none, err
	}
	describe(wanted)
	if equality.Semantic.DeepEqual(statusOf(cached), statusOf(wanted)) {
		return none, none, nil
	}
	current, ok := reflect.New(reflect.TypeOf(cached).Elem()).Interface().(O)
	if !ok {
		return none, none, fmt.Errorf("a %T is no object of an API", cached)
	}
	if err := live.Get(ctx, client.ObjectKeyFromObject(cached), current); err != nil {
		return none, none, wrapUnlessGone(err, "reading the object to write its status")
	}
	if current.GetUID() != cached.GetUID() {
		return none, none, nil
	}
	if before, err = copyOf(current); err != nil {
		return none, none, err
	}
	describe(current)
	if equality.Semantic.DeepEqual(statusOf(before), statusOf(current)) {
		return none, none, nil
	}
	if after, err = copyOf(current); err != nil {
		return none, none, err
	}
	if err := writer.Status().Patch(ctx, current, client.MergeFrom(before), client.FieldOwner(fieldManager)); err != nil {
		return none, none, wrapUnlessGone(err, "writing the status")
	}
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
