package preauthkey

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const (
	// statusTimeout ends a write of the status that hangs. It is not the reconcile's own: one that
	// took too long must be able to say so.
	statusTimeout = 10 * time.Second
	// stalledAfter is how long something may be waited for before it counts as stalled, as with a
	// Headscale.
	stalledAfter = 10 * time.Minute
)

// warningReasons are those that are worth a warning event when Ready begins to have one of them.
var warningReasons = []string{
	v1beta1.ReasonConflict, v1beta1.ReasonNotAllowed, v1beta1.ReasonManagerOff, v1beta1.ReasonScaledToZero,
	v1beta1.ReasonEndpointUnreachable, v1beta1.ReasonKeyRefused, v1beta1.ReasonUnsupported, v1beta1.ReasonRefused,
}

// report writes what came of a reconcile to the status, and decides when to reconcile again.
func (r *Reconciler) report(ctx context.Context, s *scope, err error) (reconcile.Result, error) {
	failed := status.Classify(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		// The operator is being stopped. Whatever failed, failed because of that.
		return reconcile.Result{}, nil
	case failed != nil && failed.Outdated, errors.Is(err, errGone), instance.IsBusy(err):
		return reconcile.Result{RequeueAfter: failed.RetryAfter}, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
	defer cancel()
	ready := readiness(s, failed)
	patchErr := r.patchStatus(ctx, s, ready, failed)
	if failed != nil && failed.Transient != nil {
		return reconcile.Result{}, errors.Join(failed.Transient, patchErr)
	}
	if patchErr != nil {
		return reconcile.Result{}, patchErr
	}
	return reconcile.Result{RequeueAfter: status.RequeueAfter(s.now, ready.ChangesAt, failed)}, nil
}

// readiness is the condition Ready.
func readiness(s *scope, failed *status.Failure) status.Condition {
	switch {
	case failed != nil:
		return unready(s, failed)
	case s.want == nil:
		return status.False(v1beta1.ReasonReconcileFailed, "The HeadscalePreAuthKey is being deleted")
	case s.want.isOver(&s.view):
		return status.True(v1beta1.ReasonUsed, "The pre-auth key was used or has expired, and is not replaced, because spec.reissue is Never").Until(s.decision.Next)
	}
	stored := s.view.Stored()
	if stored == nil {
		return status.False(v1beta1.ReasonReconcileFailed, "There is no pre-auth key in the Secret: "+s.decision.Message).Until(s.decision.Next)
	}
	message := fmt.Sprintf("Pre-auth key %d is in Secret %s, valid until %s", stored.Facts.ID, s.key.EffectiveSecretName(), rotation.ShowTime(stored.Expiration))
	changesAt := s.decision.Next
	if s.want.once {
		changesAt = status.Soonest(changesAt, stored.Expiration)
	} else {
		message += ", and will be replaced at " + rotation.ShowTime(s.view.Due())
	}
	return status.True(v1beta1.ReasonReady, message+s.warning).Until(changesAt)
}

// unready is the condition Ready after a failure. One in which somebody must act may end by itself.
func unready(s *scope, failed *status.Failure) status.Condition {
	ready := status.False(failed.Reason, failed.Message).Until(overAt(s.key, s.now))
	if failed.Stalled() {
		return ready.Stall()
	}
	since := status.Since(s.key.Status.Conditions, v1beta1.ConditionReady, metav1.ConditionFalse, s.now)
	return ready.WithDeadline(since.Add(stalledAfter), s.now)
}

// overAt is when a key will be over that is not to be replaced; zero: it is, or it is replaced.
func overAt(key *v1beta1.HeadscalePreAuthKey, now time.Time) time.Time {
	if key.Spec.Reissue != v1beta1.ReissueNever || key.Status.Expiration == nil || hasExpired(&key.Status, now) {
		return time.Time{}
	}
	return key.Status.Expiration.Time
}

// patchStatus writes the status if it differs from what was found, and reports the change.
func (r *Reconciler) patchStatus(ctx context.Context, s *scope, ready status.Condition, failed *status.Failure) error {
	statusOf := func(key *v1beta1.HeadscalePreAuthKey) any { return &key.Status }
	before, after, err := status.Patch(ctx, r.Live, r.Client, s.key, fieldManager, statusOf, func(key *v1beta1.HeadscalePreAuthKey) {
		describeStatus(&key.Status, s, ready, failed)
	})
	if before == nil || err != nil {
		return err
	}
	if failed == nil || failed.Transient == nil {
		// Otherwise controller-runtime logs the error.
		logChange(ctx, &before.Status, &after.Status)
	}
	status.Record(r.Events, after, status.Warnings(before.Status.Conditions, after.Status.Conditions, []string{v1beta1.ConditionReady}, warningReasons)...)
	return nil
}

// describeStatus sets the fields of a status to what was found. What the object had stays where it
// is not known what it has.
func describeStatus(reported *v1beta1.HeadscalePreAuthKeyStatus, s *scope, ready status.Condition, failed *status.Failure) {
	reported.ObservedGeneration = s.key.Generation
	reported.Used += s.reissued
	if stored := s.view.Stored(); stored != nil {
		if ready.Reason == v1beta1.ReasonUsed && stored.Facts.Used && !reported.Over {
			reported.Used++
		}
		reported.KeyID, reported.Expiration, reported.NextRotation = stored.Facts.ID, second(stored.Expiration), nil
		if !s.want.once {
			reported.NextRotation = second(s.view.Due())
		}
	}
	reported.Over = isOver(reported, s, failed)
	status.Set(&reported.Conditions, v1beta1.ConditionReady, ready, s.key.Generation, s.now)
	ongoing := status.Condition{True: failed != nil && !ready.Stalled, Reason: ready.Reason, Message: ready.Message}
	status.SetWhileTrue(&reported.Conditions, v1beta1.ConditionReconciling, ongoing, s.key.Generation, s.now)
	stalled := status.Condition{True: ready.Stalled, Reason: ready.Reason, Message: ready.Message}
	status.SetWhileTrue(&reported.Conditions, v1beta1.ConditionStalled, stalled, s.key.Generation, s.now)
}

// isOver reports whether the key is over and not to be replaced. It is noted for as long as that holds:
// no outage, and no loss of the Secret in one, is to have another key made.
func isOver(reported *v1beta1.HeadscalePreAuthKeyStatus, s *scope, failed *status.Failure) bool {
	switch {
	case s.key.Spec.Reissue != v1beta1.ReissueNever:
		return reported.Over && failed != nil // until it is replaced
	case failed == nil && s.want != nil:
		return s.want.isOver(&s.view)
	default:
		return reported.Over || hasExpired(reported, s.now)
	}
}

// second is a time as the API has it.
func second(t time.Time) *metav1.Time {
	cut := metav1.NewTime(t.Truncate(time.Second))
	return &cut
}

// logChange logs a change of the condition Ready.
func logChange(ctx context.Context, before, after *v1beta1.HeadscalePreAuthKeyStatus) {
	was := meta.FindStatusCondition(before.Conditions, v1beta1.ConditionReady)
	is := meta.FindStatusCondition(after.Conditions, v1beta1.ConditionReady)
	if was == nil || was.Status != is.Status || was.Reason != is.Reason || was.Message != is.Message {
		log.FromContext(ctx).Info("Status changed", "ready", is.Status, "reason", is.Reason, "message", is.Message)
	}
}
