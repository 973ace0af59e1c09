// Package kubeapi has what its sibling packages share about the API server: which of its refusals
// are about an object's fields, when to retry, and empty typed objects.
package kubeapi

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ConflictRetry is how long after a conflict with somebody else's object a controller requeues. No
// watch reports the deletion of an object that is not its own.
const ConflictRetry = time.Minute

// InvalidFields are the fields by which the API server itself found an object invalid; none
// for any other error. An admission policy or webhook may refuse an object as invalid too,
// without fields.
func InvalidFields(err error) []metav1.StatusCause {
	var refused apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &refused) || refused.Status().Details == nil {
		return nil
	}
	var causes []metav1.StatusCause
	for _, cause := range refused.Status().Details.Causes {
		if cause.Field != "" {
			causes = append(causes, cause)
		}
	}
	return causes
}

// NewLike is an empty object of the type that an object has, which is a pointer. An error is
// about an object whose type is not what its interface needs.
func NewLike[O any](object O) (O, error) {
	empty, ok := reflect.New(reflect.TypeOf(object).Elem()).Interface().(O)
	if !ok {
		return empty, fmt.Errorf("a %T is no object of an API", object)
	}
	return empty, nil
}

// BareLike is an object of the type that an object has, with nothing but what identifies it:
// its namespace, name, UID and resource version. Errors are those of NewLike.
func BareLike[O metav1.Object](object O) (O, error) {
	bare, err := NewLike(object)
	if err != nil {
		return bare, err
	}
	bare.SetNamespace(object.GetNamespace())
	bare.SetName(object.GetName())
	bare.SetUID(object.GetUID())
	bare.SetResourceVersion(object.GetResourceVersion())
	return bare, nil
}
