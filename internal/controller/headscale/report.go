package headscale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// statusTimeout ends a write of the status that hangs. It is not the pass's own: a pass
// that took too long must be able to say so.
const statusTimeout = 10 * time.Second

// report writes what the pass found to the status, and decides when to come back.
// It is the end of every pass, whatever became of the others of its steps.
func (r *HeadscaleReconciler) report(ctx context.Context, p *pass, err error) (reconcile.Result, error) {
	failed := classify(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		// The operator is being stopped. Whatever failed, failed because of that.
		return reconcile.Result{}, nil
	case failed != nil && failed.outdated:
		return reconcile.Result{RequeueAfter: failed.retryAfter}, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
	defer cancel()
	available := availability(p)
	key := stateOfKey(p, available)
	parts := judgement{available: available, rolledOut: rollout(p), key: key.state, failed: failed}
	patchErr := r.patchStatus(ctx, p.headscale, parts, func(status *v1beta1.HeadscaleStatus) {
		describeStatus(status, p, key.status, parts)
	})
	r.metrics.count(p.headscale, classify(errors.Join(err, patchErr)))
	if failed != nil && failed.transient != nil {
		return reconcile.Result{}, errors.Join(failed.transient, patchErr)
	}
	if patchErr != nil {
		return reconcile.Result{}, patchErr
	}
	return reconcile.Result{RequeueAfter: comeBack(p.now, soonest(available.changesAt, key.changesAt), failed)}, nil
}

// comeBack is how long until the next thing happens that no event tells of; zero:
// there is no such thing.
func comeBack(now, changesAt time.Time, failed *failure) time.Duration {
	var wait time.Duration
	if !changesAt.IsZero() {
		wait = max(changesAt.Sub(now), time.Millisecond)
	}
	if failed != nil && failed.retryAfter > 0 && (wait == 0 || failed.retryAfter < wait) {
		wait = failed.retryAfter
	}
	return wait
}

// describeStatus sets the fields of a status to what the pass found.
func describeStatus(status *v1beta1.HeadscaleStatus, p *pass, key *v1beta1.APIKeyStatus, parts judgement) {
	status.ObservedGeneration = p.headscale.Generation
	status.APIKey = key
	if running := runningVersion(p); running != "" {
		status.Version = running
	}
	progressing := progress(p, parts)
	setCondition(status, p, v1beta1.ConditionReady, withWarnings(readiness(parts), p.objects))
	setCondition(status, p, v1beta1.ConditionAvailable, parts.available.verdict)
	setCondition(status, p, v1beta1.ConditionAPIKeyReady, parts.key.verdict)
	setCondition(status, p, v1beta1.ConditionProgressing, progressing)
	setWhileTrue(status, p, v1beta1.ConditionReconciling, progressing)
	setWhileTrue(status, p, v1beta1.ConditionStalled, stall(parts))
	status.Warning = openWarning(status)
}

// setCondition sets a condition that is always there.
func setCondition(status *v1beta1.HeadscaleStatus, p *pass, kind string, state verdict) {
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type:               kind,
		Status:             conditionStatus(state.ok),
		ObservedGeneration: p.headscale.Generation,
		LastTransitionTime: metav1.NewTime(p.now.Truncate(time.Second)),
		Reason:             state.reason,
		Message:            cut(state.message, maxMessage),
	})
}

// setWhileTrue sets a condition that is there only while it is true.
func setWhileTrue(status *v1beta1.HeadscaleStatus, p *pass, kind string, state verdict) {
	if !state.ok {
		meta.RemoveStatusCondition(&status.Conditions, kind)
		return
	}
	setCondition(status, p, kind, state)
}

// judgement is what a pass found, part by part.
type judgement struct {
	available state
	rolledOut verdict
	key       state
	// failed is what became of an error of the pass; nil without one.
	failed *failure
}

// readiness is the first thing that is wrong, in the order in which a user would
// want to hear of it. What is wrong and does no harm yet is said, too.
func readiness(parts judgement) verdict {
	if parts.failed != nil {
		return verdict{false, parts.failed.reason, parts.failed.message}
	}
	for _, part := range []verdict{parts.available.verdict, parts.rolledOut, parts.key.verdict} {
		if !part.ok {
			return part
		}
	}
	if slices.Contains(alarms, parts.key.reason) {
		return parts.key.verdict
	}
	return verdict{true, v1beta1.ReasonReady, "Headscale is running as asked for"}
}

// withWarnings adds what works and should be otherwise to a verdict that says that all
// is well.
func withWarnings(ready verdict, objects *resources.Objects) verdict {
	if ready.ok && objects != nil && len(objects.Warnings) > 0 {
		ready.message += "; but " + strings.Join(objects.Warnings, "; ")
	}
	return ready
}

// patchStatus writes the status if it differs from what it should be: first from
// what the cache says, and then, because the cache may be old, from what is true.
func (r *HeadscaleReconciler) patchStatus(ctx context.Context, headscale *v1beta1.Headscale, parts judgement, describe func(*v1beta1.HeadscaleStatus)) error {
	wanted := headscale.Status.DeepCopy()
	describe(wanted)
	if equality.Semantic.DeepEqual(&headscale.Status, wanted) {
		return nil
	}
	live := &v1beta1.Headscale{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(headscale), live); err != nil {
		return wrapUnlessGone(err, "reading the Headscale to write its status")
	}
	if live.UID != headscale.UID {
		return nil
	}
	before := live.DeepCopy()
	describe(&live.Status)
	if equality.Semantic.DeepEqual(&before.Status, &live.Status) {
		return nil
	}
	if parts.failed == nil || parts.failed.transient == nil {
		// Else the error is logged by whoever tries again.
		logChange(ctx, &before.Status, &live.Status)
	}
	after := live.Status.DeepCopy()
	if err := r.Client.Status().Patch(ctx, live, client.MergeFrom(before), client.FieldOwner(FieldManager)); err != nil {
		return wrapUnlessGone(err, "writing the status")
	}
	r.record(live, r.withUnexpired(ctx, before, occurrences(&before.Status, after))...)
	return nil
}

// wrapUnlessGone adds what was tried to an error. A Headscale that was deleted in
// the meantime is none.
func wrapUnlessGone(err error, action string) error {
	if client.IgnoreNotFound(err) == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}

// logChange says once what became of the condition Ready.
func logChange(ctx context.Context, before, after *v1beta1.HeadscaleStatus) {
	was := meta.FindStatusCondition(before.Conditions, v1beta1.ConditionReady)
	is := meta.FindStatusCondition(after.Conditions, v1beta1.ConditionReady)
	if was == nil || was.Status != is.Status || was.Reason != is.Reason || was.Message != is.Message {
		log.FromContext(ctx).Info("Status changed", "ready", is.Status, "reason", is.Reason, "message", is.Message)
	}
}

// conditionStatus is True or False.
func conditionStatus(ok bool) metav1.ConditionStatus {
	if ok {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// maxMessage is the longest message that the API accepts in a condition, in bytes.
const maxMessage = 32768

// cut shortens a text to a number of bytes.
func cut(text string, length int) string {
	if len(text) <= length {
		return text
	}
	return strings.ToValidUTF8(text[:length-len("…")], "") + "…"
}
