package headscale

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// conflictRetry is how long after a conflict the operator looks again. Nothing
// tells it when an object that is not its own goes away: it does not watch those.
const conflictRetry = time.Minute

// outdatedRetry is how long after a write that came too late the operator looks again.
// What it did not know yet arrives in the meantime.
const outdatedRetry = time.Second

// conflictError says that a name which a Headscale needs is taken.
type conflictError struct {
	message string
}

// Error is a sentence that names what is in the way and what to do.
func (e *conflictError) Error() string { return e.message }

// foreignObjects makes a conflictError of objects that belong to someone else.
func foreignObjects(names []string) error {
	return &conflictError{message: fmt.Sprintf(
		"%s exists already and does not belong to this Headscale, so it is left alone: delete or rename it, or give the Headscale another name",
		strings.Join(names, ", "))}
}

// waitError says what has to happen elsewhere before a wish can be fulfilled.
type waitError struct {
	reason, message string
}

// Error is a sentence that names what is waited for.
func (e *waitError) Error() string { return e.message }

// laterError is an error that may be over some time later, of which nothing tells.
type laterError struct {
	after time.Duration
	error
}

// Unwrap returns the error itself.
func (e *laterError) Unwrap() error { return e.error }

// failure is what to make of an error of a reconcile.
type failure struct {
	// reason and message are for the condition Ready.
	reason, message string
	// retryAfter is when to try again; zero: not before something changes.
	retryAfter time.Duration
	// transient is the error, where trying again soon may help. It is tried again with
	// a growing delay.
	transient error
	// waiting tells that something else happens first, of which the operator will hear.
	waiting bool
	// outdated tells that somebody else wrote first, so that the pass acted on what is no
	// longer true. That is nobody's fault, and nothing to tell anyone of.
	outdated bool
}

// stalled tells whether only the user can put it right.
func (f *failure) stalled() bool {
	return f.transient == nil && !f.waiting && !f.outdated
}

// within is the failure, tried again after that time or sooner.
func (f *failure) within(retryAfter time.Duration) *failure {
	sooner := *f
	if f.retryAfter == 0 || f.retryAfter > retryAfter {
		sooner.retryAfter = retryAfter
	}
	return &sooner
}

// classify decides for every error of a pass whether to wait for a known time, for
// the user, or for better luck. It returns nil for nil. Of several errors, one that
// may pass soon comes first: it must be tried again whatever else is wrong. One that is
// of no interest to anyone comes last.
func classify(err error) *failure {
	several, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return classifyOne(err)
	}
	var first *failure
	for _, part := range several.Unwrap() {
		failed := classify(part)
		if failed.transient != nil {
			return &failure{reason: failed.reason, message: err.Error(), transient: err}
		}
		switch {
		case first == nil:
			first = failed
		case first.outdated && !failed.outdated:
			first = failed.within(first.retryAfter)
		case failed.outdated:
			first = first.within(failed.retryAfter)
		}
	}
	return first
}

// classifyOne is classify for a single error.
func classifyOne(err error) *failure {
	var conflict *conflictError
	var invalid *resources.InvalidError
	var upgrade *resources.UpgradeError
	var wait *waitError
	var later *laterError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &later):
		failed := classifyOne(later.error)
		failed.retryAfter = later.after
		return failed
	case errors.As(err, &conflict):
		return &failure{reason: v1beta1.ReasonConflict, message: conflict.Error(), retryAfter: conflictRetry}
	case errors.As(err, &invalid):
		return &failure{reason: v1beta1.ReasonInvalidConfig, message: invalid.Error()}
	case errors.As(err, &upgrade):
		return &failure{reason: v1beta1.ReasonUpgradeRefused, message: upgrade.Error()}
	case errors.As(err, &wait):
		return &failure{reason: wait.reason, message: wait.message, waiting: true}
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return &failure{reason: v1beta1.ReasonReconcileFailed, message: "The namespace is being deleted"}
	case apierrors.IsInvalid(err):
		return &failure{reason: v1beta1.ReasonInvalidConfig, message: "The API server refuses what spec asks for: " + err.Error()}
	case apierrors.IsConflict(err):
		return &failure{reason: v1beta1.ReasonReconcileFailed, message: err.Error(), retryAfter: outdatedRetry, outdated: true}
	default:
		return &failure{reason: v1beta1.ReasonReconcileFailed, message: err.Error(), transient: err}
	}
}
