package status

import (
	"cmp"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/kubeapi"
)

// outdatedRetry is how long after an optimistic-lock conflict the controller reconciles again. By
// then its cache has caught up.
const outdatedRetry = time.Second

// terminatingRetry is how long the controller waits after a write that was refused because the
// namespace is terminating. Its objects may remain for long, and an operator that watches only some
// namespaces does not notice when a namespace of that name is created again.
const terminatingRetry = 30 * time.Second

// ConflictError says that another object has taken something that an object needs.
type ConflictError struct {
	// Message is a sentence that names what is in the way and what to do.
	Message string
}

// Error is the message.
func (e *ConflictError) Error() string { return e.Message }

// Reason is the reason of the condition that reports it.
func (e *ConflictError) Reason() string { return v1beta1.ReasonConflict }

// RetryAfter is how long to wait before a retry.
func (e *ConflictError) RetryAfter() time.Duration { return kubeapi.ConflictRetry }

// WaitError says what has to happen elsewhere first, which a watch will report.
type WaitError struct {
	// Because is the reason of the condition that reports it.
	Because string
	// Message is a sentence that names what is waited for.
	Message string
}

// Error is the message.
func (e *WaitError) Error() string { return e.Message }

// Reason is the reason of the condition that reports it.
func (e *WaitError) Reason() string { return e.Because }

// Waiting says that it ends by itself.
func (e *WaitError) Waiting() bool { return true }

// LaterError is an error that may end at some later time, which no watch reports.
type LaterError struct {
	// After is how long until it is worth trying again.
	After time.Duration
	error
}

// Later returns an error that is tried again after a time.
func Later(after time.Duration, err error) error { return &LaterError{after, err} }

// Unwrap returns the error itself.
func (e *LaterError) Unwrap() error { return e.error }

// RetryAfter is how long until it is worth trying again.
func (e *LaterError) RetryAfter() time.Duration { return e.After }

// The methods by which an error classifies itself. An error with a Reason must be resolved by
// somebody: by the user, or, if it has a time to retry after, by somebody else; or it is one to
// wait for.
type (
	reasoned  interface{ Reason() string }
	retryable interface{ RetryAfter() time.Duration }
	waiting   interface{ Waiting() bool }
)

// Failure is how to handle an error of a reconcile.
type Failure struct {
	// Reason and Message are for the condition Ready.
	Reason, Message string
	// RetryAfter is when to reconcile again; zero: not before something changes.
	RetryAfter time.Duration
	// Transient is the error, if an early retry may help. It is retried with backoff.
	Transient error
	// Waiting reports whether something else has to happen first, which a watch will report.
	Waiting bool
	// Conflict is the message of an optimistic-lock conflict, or "".
	Conflict string
	// Outdated reports whether there is only such a conflict: it is requeued, not reported.
	Outdated bool
}

// Stalled reports whether somebody must act before it can go on.
func (f *Failure) Stalled() bool {
	return f.Transient == nil && !f.Waiting && !f.Outdated
}

// within is the failure, retried after that time or sooner; zero: as it is.
func (f *Failure) within(retryAfter time.Duration) *Failure {
	sooner := *f
	if f.Transient == nil && retryAfter > 0 && (f.RetryAfter == 0 || f.RetryAfter > retryAfter) {
		sooner.RetryAfter = retryAfter
	}
	return &sooner
}

// Classify decides for every error of a reconcile whether to wait for a known time, for
// somebody, or to retry with backoff. It returns nil for nil. Of several errors, a transient
// one comes first, because it must be retried whatever else is wrong, and an optimistic-lock
// conflict last; the message has those of all but the conflicts.
func Classify(err error) *Failure {
	several, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return classifyOne(err)
	}
	var all *Failure
	for _, part := range several.Unwrap() {
		all = all.And(Classify(part))
	}
	if all != nil && all.Transient != nil {
		all.Transient = err
	}
	return all
}

// Lasting is the failure if its optimistic-lock conflict lasts: the conflict is reported, together
// with any other error, and err is retried with backoff.
func (f *Failure) Lasting(err error) *Failure {
	lasting := &Failure{Reason: f.Reason, Message: "Writes keep failing with an optimistic-lock conflict: " + f.Conflict, Transient: err}
	if !f.Outdated {
		lasting.Message = f.Message + "; " + lasting.Message
	}
	return lasting
}

// And is what follows from two failures, each of which may be nil: none.
func (f *Failure) And(other *Failure) *Failure {
	switch {
	case f == nil:
		return other
	case other == nil:
		return f
	case f.Outdated && !other.Outdated:
		return other.And(f)
	}
	both, rest := f, other
	if f.Transient == nil && other.Transient != nil {
		both, rest = other, f
	}
	both = both.within(rest.RetryAfter)
	both.Conflict = cmp.Or(f.Conflict, other.Conflict)
	if !other.Outdated {
		both.Message = f.Message + "; " + other.Message
	}
	return both
}

// classifyOne is Classify for a single error.
func classifyOne(err error) *Failure {
	var known interface {
		error
		reasoned
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		failed := &Failure{Reason: known.Reason(), Message: err.Error()}
		var later retryable
		if errors.As(err, &later) {
			failed.RetryAfter = later.RetryAfter()
		}
		var wait waiting
		failed.Waiting = errors.As(err, &wait) && wait.Waiting()
		return failed
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return &Failure{Reason: v1beta1.ReasonReconcileFailed, Message: "The namespace is being deleted", RetryAfter: terminatingRetry}
	case len(kubeapi.InvalidFields(err)) > 0:
		return &Failure{Reason: v1beta1.ReasonInvalidConfig, Message: "The API server rejected an object built from spec: " + err.Error()}
	case apierrors.IsInvalid(err):
		return &Failure{Reason: v1beta1.ReasonReconcileFailed, Message: "An admission policy of the cluster rejected a request: " + err.Error(), Transient: err}
	case apierrors.IsConflict(err):
		return &Failure{Reason: v1beta1.ReasonReconcileFailed, Message: err.Error(), Conflict: err.Error(), RetryAfter: outdatedRetry, Outdated: true}
	default:
		return &Failure{Reason: v1beta1.ReasonReconcileFailed, Message: err.Error(), Transient: err}
	}
}

// RequeueAfter is how long until the next change that no watch reports; zero if there is none. A
// condition changes at changesAt, if it is not zero.
func RequeueAfter(now, changesAt time.Time, failed *Failure) time.Duration {
	var wait time.Duration
	if !changesAt.IsZero() {
		wait = max(changesAt.Sub(now), time.Millisecond)
	}
	if failed != nil && failed.RetryAfter > 0 && (wait == 0 || failed.RetryAfter < wait) {
		wait = failed.RetryAfter
	}
	return wait
}
