package headscale

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// statusTimeout ends a write of the status that hangs. It is not the reconcile's own: a
// reconcile that took too long must be able to say so.
const statusTimeout = 10 * time.Second

// report writes what was found to the status, and decides when to reconcile again. It is the
// end of every reconcile, whatever the outcome of its other steps.
func (r *Reconciler) report(ctx context.Context, s scope, o observed, err error) (reconcile.Result, error) {
	failed := status.Classify(err)
	if r.conflicts.last(client.ObjectKeyFromObject(s.headscale), failed) {
		failed = failed.Lasting(err)
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		// The operator is being stopped. Whatever failed, failed because of that.
		return reconcile.Result{}, nil
	case failed != nil && failed.Outdated:
		return reconcile.Result{RequeueAfter: failed.RetryAfter}, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
	defer cancel()
	f := judge(s, o, failed)
	patchErr := r.patchStatus(ctx, s, o, f)
	r.metrics.count(s.headscale, failed.And(status.Classify(patchErr)))
	if failed != nil && failed.Transient != nil {
		return reconcile.Result{}, errors.Join(failed.Transient, patchErr)
	}
	if patchErr != nil {
		return reconcile.Result{}, patchErr
	}
	_, identityChanges := identityWarnings(s, &o)
	return reconcile.Result{RequeueAfter: status.RequeueAfter(s.now, status.Soonest(f.available.ChangesAt, f.key.ChangesAt, o.verifyAt, identityChanges), failed)}, nil
}

// findings are the judgements that the conditions follow from.
type findings struct {
	available, rolledOut status.Condition
	key                  status.Condition
	// apiKey is for the resource's status; nil while no key is managed.
	apiKey *v1beta1.APIKeyStatus
	// failed is what follows from an error of the reconcile; nil without one.
	failed *status.Failure
}

// judge is a function of what was observed and of the time alone.
func judge(s scope, o observed, failed *status.Failure) findings {
	available, rolledOut := availability(s, o), rollout(o)
	if o.waiting != "" {
		available.Message += ". " + o.waiting
		rolledOut.Message += ". " + o.waiting
	}
	key, apiKey := stateOfKey(s, o, available)
	return findings{available: available, rolledOut: rolledOut, key: key, apiKey: apiKey, failed: failed}
}

// patchStatus writes the status if it differs from what was found, and reports the change.
func (r *Reconciler) patchStatus(ctx context.Context, s scope, o observed, f findings) error {
	statusOf := func(headscale *v1beta1.Headscale) any { return &headscale.Status }
	before, after, err := status.Patch(ctx, r.Live, r.Client, s.headscale, FieldManager, statusOf, func(headscale *v1beta1.Headscale) {
		describeStatus(&headscale.Status, s, o, f)
	})
	if before == nil || err != nil {
		return err
	}
	if f.failed == nil || f.failed.Transient == nil {
		// Else the error is logged by whoever retries.
		logChange(ctx, &before.Status, &after.Status)
	}
	status.Record(r.Events, after, r.withUnexpired(ctx, before, eventsOf(&before.Status, &after.Status))...)
	return nil
}

// describeStatus sets the fields of a status to what was found.
func describeStatus(reported *v1beta1.HeadscaleStatus, s scope, o observed, f findings) {
	reported.ObservedGeneration = s.headscale.Generation
	reported.APIKey = f.apiKey
	if running := runningVersion(s, o); running != "" {
		reported.Version = running
	}
	if o.applied {
		reported.AppliedGeneration = s.headscale.Generation
	}
	reported.Preflight = o.preflight.describe(reported.Preflight, o.applied)
	set := func(kind string, condition status.Condition) {
		status.Set(&reported.Conditions, kind, condition, s.headscale.Generation, s.now)
	}
	setWhileTrue := func(kind string, condition status.Condition) {
		status.SetWhileTrue(&reported.Conditions, kind, condition, s.headscale.Generation, s.now)
	}
	progressing := progress(s, o, f)
	ignored := longRequests(s, o)
	unkept, _ := identityWarnings(s, &o)
	set(v1beta1.ConditionReady, withWarnings(readiness(f), slices.Concat(o.warnings, serverWarnings(s, o), backupWarnings(o), unkept, ignored)))
	set(v1beta1.ConditionAvailable, f.available)
	// Also where Headscale is not ready: somebody waits for the key.
	key := f.key
	key.Message = strings.Join(append([]string{key.Message}, ignored...), "; ")
	set(v1beta1.ConditionAPIKeyReady, key)
	if o.verifyKnown {
		reported.BackupVerification = o.verification
	}
	setBackedUp(&reported.Conditions, reported.BackupVerification, s, o)
	set(v1beta1.ConditionProgressing, progressing)
	setWhileTrue(v1beta1.ConditionReconciling, progressing)
	setWhileTrue(v1beta1.ConditionStalled, stalled(f))
	reported.Warning = openWarning(reported)
}

// readiness is the first thing that is wrong, in the order in which a user would want to
// hear of it. What is wrong and does no harm yet is said, too.
func readiness(f findings) status.Condition {
	if f.failed != nil {
		return status.False(f.failed.Reason, f.failed.Message)
	}
	for _, part := range []status.Condition{f.available, f.rolledOut, f.key} {
		if !part.True {
			return status.False(part.Reason, part.Message)
		}
	}
	if slices.Contains(warningReasons, f.key.Reason) {
		return status.True(f.key.Reason, f.key.Message)
	}
	return status.True(v1beta1.ReasonReady, "Headscale is running with the desired configuration")
}

// withWarnings adds to a condition that is true what works and should be otherwise.
func withWarnings(ready status.Condition, warnings []string) status.Condition {
	if ready.True && len(warnings) > 0 {
		ready.Message += v1beta1.WarningsIntro + strings.Join(warnings, "; ")
	}
	return ready
}

// progress reports whether something is going on that ends by itself.
func progress(s scope, o observed, f findings) status.Condition {
	during := func(ongoing bool, of status.Condition) status.Condition {
		return status.Condition{True: ongoing, Reason: of.Reason, Message: of.Message}
	}
	switch {
	case f.failed != nil:
		return status.Condition{True: !f.failed.Stalled(), Reason: f.failed.Reason, Message: f.failed.Message}
	case stopped(s.headscale) && o.statefulSet != nil && o.statefulSet.Status.Replicas == 0:
		return status.False(v1beta1.ReasonScaledToZero, f.available.Message)
	case !f.rolledOut.True && !stopped(s.headscale) && f.available.True:
		return during(true, f.rolledOut)
	case !f.available.True:
		return during(!f.available.Stalled, f.available)
	case !f.key.True:
		return during(!f.key.Stalled, f.key)
	default:
		return status.False(v1beta1.ReasonComplete, "Reconciliation complete")
	}
}

// stalled reports whether somebody must act before it can go on. It is never true at the same
// time as progress.
func stalled(f findings) status.Condition {
	switch {
	case f.failed != nil:
		return status.Condition{True: f.failed.Stalled(), Reason: f.failed.Reason, Message: f.failed.Message}
	case !f.available.True:
		return status.Condition{True: f.available.Stalled, Reason: f.available.Reason, Message: f.available.Message}
	case !f.key.True && f.rolledOut.True:
		return status.Condition{True: f.key.Stalled, Reason: f.key.Reason, Message: f.key.Message}
	default:
		return status.Condition{}
	}
}

// logChange logs a change of the condition Ready.
func logChange(ctx context.Context, before, after *v1beta1.HeadscaleStatus) {
	was := meta.FindStatusCondition(before.Conditions, v1beta1.ConditionReady)
	is := meta.FindStatusCondition(after.Conditions, v1beta1.ConditionReady)
	if was == nil || was.Status != is.Status || was.Reason != is.Reason || was.Message != is.Message {
		log.FromContext(ctx).Info("Status changed", "ready", is.Status, "reason", is.Reason, "message", is.Message)
	}
}
