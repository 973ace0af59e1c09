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

// Recovered runs a step of the reconcile of an object of a kind, and makes an error of a panic: it is
// reported in the status of that object and retried with backoff, and the other objects are not affected.
// Where the panic came from is in the log. (controller-runtime recovers, too, but then no status says why.)
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
