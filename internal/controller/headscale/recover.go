package headscale

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/internal/redact"
)

// maxPanic is how much of what a panic says stands in a condition, in bytes.
const maxPanic = 500

// recovered runs a step, and makes an error of a panic: one Headscale on which the operator
// fails is told so, is retried with backoff, and the others do not notice. Where the panic came
// from is in the log. (controller-runtime recovers, too, but then no status says why.)
func recovered(ctx context.Context, step func() error) (err error) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		said := redact.Line(redact.Secrets(fmt.Sprint(fault)), maxPanic)
		err = fmt.Errorf("the operator panicked while reconciling this Headscale (%s): revert its last change, and report the bug with the operator's log", said)
		log.FromContext(ctx).Error(errors.New(said), "A step of the reconcile panicked", "stack", string(debug.Stack()))
	}()
	return step()
}
