package status

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/internal/redact"
)

// maxPanic is how many bytes of a panic's message a condition quotes.
const maxPanic = 500

// Recovered runs a step of the reconcile of an object of a kind, and turns a panic into an error.
// The error is reported in the status of that object and retried with backoff, and other objects
// are not affected. The stack of the panic is in the log. (controller-runtime recovers, too, but
// then no status says why.)
func Recovered(ctx context.Context, kind string, step func() error) (err error) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		said := redact.Line(redact.Secrets(fmt.Sprint(fault)), maxPanic)
		err = fmt.Errorf("the operator panicked while reconciling this %s (%s): revert its last change, and report the bug with the operator's log", kind, said)
		log.FromContext(ctx).Error(errors.New(said), "A step of the reconcile panicked", "stack", string(debug.Stack()))
	}()
	return step()
}
