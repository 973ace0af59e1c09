package user

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
	"infrado.cloud/headscale-operator/internal/kube/status"
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
	v1beta1.ReasonHasNodes, v1beta1.ReasonKeysAtRisk,
}

// report writes the result of a reconcile to the status, and returns when to reconcile again.
func (r *Reconciler) report(ctx context.Context, s *scope, err error) (reconcile.Result, error) {
	failed := status.Classify(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		// The operator is being stopped. Whatever failed, failed because of that.
		return reconcile.Result{}, nil
	case isUndone(err) || failed != nil && failed.Outdated:
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
	if failed != nil {
		ready := status.False(failed.Reason, failed.Message)
		if failed.Stalled() {
			return ready.Stall()
		}
		since := status.Since(s.user.Status.Conditions, v1beta1.ConditionReady, metav1.ConditionFalse, s.now)
		return ready.WithDeadline(since.Add(stalledAfter), s.now)
	}
	ready := status.True(v1beta1.ReasonReady, fmt.Sprintf("User %s exists in Headscale", describe(s.done.user.Name, s.done.user.ID)))
	if s.instance != nil && s.instance.Headscale != nil && mayDeleteAllKeys(s.instance.Headscale) && !isRetained(s) {
		ready.Message += v1beta1.WarningsIntro + keysAtRisk + ": it stays when the HeadscaleUser is deleted, unless spec.deletionPolicy says Delete"
	}
	return ready
}

// describe names a user.
func describe(name string, id uint64) string { return fmt.Sprintf("%s (id %d)", name, id) }

// patchStatus writes the status if it differs from what was found, and reports the change.
func (r *Reconciler) patchStatus(ctx context.Context, s *scope, ready status.Condition, failed *status.Failure) error {
	statusOf := func(user *v1beta1.HeadscaleUser) any { return &user.Status }
	before, after, err := status.Patch(ctx, r.Live, r.Client, s.user, fieldManager, statusOf, func(user *v1beta1.HeadscaleUser) {
		describeStatus(&user.Status, s, ready, failed)
	})
	if before == nil || err != nil {
		return err
	}
	faultpoint(stepReport)
	if failed == nil || failed.Transient == nil {
		// Otherwise controller-runtime logs the error.
		logChange(ctx, &before.Status, &after.Status)
	}
	status.Record(r.Events, after, eventsOf(s, &before.Status, &after.Status)...)
	return nil
}

// describeStatus sets the fields of a status to what was observed. A field whose value is unknown
// stays as it was.
func describeStatus(reported *v1beta1.HeadscaleUserStatus, s *scope, ready status.Condition, failed *status.Failure) {
	reported.ObservedGeneration = s.user.Generation
	if own := s.done.user; own.ID != 0 {
		createdAt := metav1.NewTime(own.CreatedAt.Truncate(time.Second))
		if reported.UserID != own.ID || !reported.CreatedAt.Equal(&createdAt) {
			reported.Adopted = s.done.adopted // Recorded once for each user, as the cache may be stale.
		}
		reported.UserID, reported.CreatedAt = own.ID, &createdAt
	}
	status.Set(&reported.Conditions, v1beta1.ConditionReady, ready, s.user.Generation, s.now)
	ongoing := status.Condition{True: failed != nil && !ready.Stalled, Reason: ready.Reason, Message: ready.Message}
	status.SetWhileTrue(&reported.Conditions, v1beta1.ConditionReconciling, ongoing, s.user.Generation, s.now)
	stalled := status.Condition{True: ready.Stalled, Reason: ready.Reason, Message: ready.Message}
	status.SetWhileTrue(&reported.Conditions, v1beta1.ConditionStalled, stalled, s.user.Generation, s.now)
}

// eventsOf are the events of a change of the status. They follow from what is stored, so that each
// is recorded once, whichever operator sees the change.
func eventsOf(s *scope, before, after *v1beta1.HeadscaleUserStatus) []status.Event {
	events := status.Warnings(before.Conditions, after.Conditions, []string{v1beta1.ConditionReady}, warningReasons)
	if before.UserID == after.UserID && before.CreatedAt.Equal(after.CreatedAt) {
		return events
	}
	own := s.done.user
	made := status.Event{Reason: v1beta1.EventUserCreated, Note: "Created user " + describe(own.Name, own.ID)}
	if after.Adopted {
		made = status.Event{Reason: v1beta1.EventUserAdopted, Note: fmt.Sprintf("User %s existed before, and was taken over%s", describe(own.Name, own.ID), staysUnlessDelete(s))}
	}
	if before.UserID == 0 {
		return append(events, made)
	}
	return append(events, status.Event{Warning: true, Reason: v1beta1.EventUserReplaced, Note: fmt.Sprintf(
		"User %s no longer exists: somebody deleted it, or Headscale has another database. %s", describe(s.user.Spec.Username, before.UserID), made.Note)})
}

// staysUnlessDelete says what happens to a user that was taken over when its object is deleted.
func staysUnlessDelete(s *scope) string {
	if isRetained(s) {
		return "; it stays in Headscale when the HeadscaleUser is deleted, unless spec.deletionPolicy is set to Delete"
	}
	return ""
}

// recordEvent records an event of a change.
func (r *Reconciler) recordEvent(s *scope, reason, format string, arguments ...any) {
	status.Record(r.Events, s.user, status.Event{Action: status.ActionReconcile, Reason: reason, Note: fmt.Sprintf(format, arguments...)})
}

// recordWarning records a warning event.
func (r *Reconciler) recordWarning(s *scope, reason, format string, arguments ...any) {
	status.Record(r.Events, s.user, status.Event{Warning: true, Action: status.ActionReconcile, Reason: reason, Note: fmt.Sprintf(format, arguments...)})
}

// logChange logs a change of the condition Ready.
func logChange(ctx context.Context, before, after *v1beta1.HeadscaleUserStatus) {
	was := meta.FindStatusCondition(before.Conditions, v1beta1.ConditionReady)
	is := meta.FindStatusCondition(after.Conditions, v1beta1.ConditionReady)
	if was == nil || was.Status != is.Status || was.Reason != is.Reason || was.Message != is.Message {
		log.FromContext(ctx).Info("Status changed", "ready", is.Status, "reason", is.Reason, "message", is.Message)
	}
}
