package apply

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/kubeapi"
)

// ForeignError says that objects of someone else already have the names that an owner needs.
type ForeignError struct {
	// Owner is the object that needs the names.
	Owner client.Object
	// Objects are the kinds and names of the objects in the way.
	Objects []string
}

// Error names what is in the way and what to do.
func (e *ForeignError) Error() string {
	kind := kindOf(e.Owner)
	return fmt.Sprintf("%s exists already and does not belong to this %s, so it is left alone: delete or rename it, or give the %s another name",
		strings.Join(e.Objects, ", "), kind, kind)
}

// Reason is the reason of the condition that reports it.
func (e *ForeignError) Reason() string { return v1beta1.ReasonConflict }

// RetryAfter is how long until it is worth looking again.
func (e *ForeignError) RetryAfter() time.Duration { return kubeapi.ConflictRetry }

// OwnerGoneError says that an owner is being deleted, so that nothing is written for it.
type OwnerGoneError struct {
	// Owner is the object as it was known.
	Owner client.Object
}

// Error says that the owner is being deleted.
func (e *OwnerGoneError) Error() string {
	return fmt.Sprintf("The %s is being deleted", kindOf(e.Owner))
}

// Reason is the reason of the condition that reports it.
func (e *OwnerGoneError) Reason() string { return v1beta1.ReasonProgressing }

// Waiting says that a watch will report when it is over.
func (e *OwnerGoneError) Waiting() bool { return true }

// kindOf is the kind of an object, by its Go type: typed objects from a cache do not say it.
func kindOf(object client.Object) string {
	return reflect.TypeOf(object).Elem().Name()
}

// EditedError says that the API server refuses an object because of what others changed in it.
type EditedError struct {
	// Kind, Name and Namespace are the object's.
	Kind, Name, Namespace string
	// Managers are the field managers that changed something in it.
	Managers []string
	// Err is the refusal.
	Err error
}

// Error names who changed the object and how to see what.
func (e *EditedError) Error() string {
	return fmt.Sprintf("The %s %s was changed by %s, and the API server rejects it together with that change: %v; undo the change: kubectl get %s %s -n %s -o yaml --show-managed-fields shows it",
		e.Kind, e.Name, strings.Join(e.Managers, ", "), e.Err, strings.ToLower(e.Kind), e.Name, e.Namespace)
}

// Unwrap returns the refusal.
func (e *EditedError) Unwrap() error { return e.Err }

// Reason is the reason of the condition that reports it.
func (e *EditedError) Reason() string { return v1beta1.ReasonConflict }

// RetryAfter is how long until it is worth trying again.
func (e *EditedError) RetryAfter() time.Duration { return kubeapi.ConflictRetry }
