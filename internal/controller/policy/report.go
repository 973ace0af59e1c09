package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

const (
	// statusTimeout ends writes of status that hang. It is not the reconcile's own: one that took
	// too long must be able to say so.
	statusTimeout = 30 * time.Second
	// stalledAfter is how long something may be waited for before it counts as stalled, as with a
	// Headscale.
	stalledAfter = 10 * time.Minute
)

// warningReasons are those that are worth a warning event when Ready begins to have one of them.
var warningReasons = []string{
	v1beta1.ReasonConflict, v1beta1.ReasonManagerOff, v1beta1.ReasonScaledToZero, v1beta1.ReasonEndpointUnreachable,
	v1beta1.ReasonKeyRefused, v1beta1.ReasonUnsupported, v1beta1.ReasonRefused, v1beta1.ReasonInvalidPolicy,
	v1beta1.ReasonPolicyMode, v1beta1.ReasonTooLarge, v1beta1.ReasonWouldAllowAll, v1beta1.ReasonContested,
}

// noteSending notes at an object that a policy is about to be sent. Of those that have changed, one is likely to
// be deleted where Headscale refuses it, and the note with it: another one has it, if there is one. What was noted
// before, and is stored, goes on being known as accepted, else it would be taken for a change by hand. It is "" where
// there is none.
func (r *Reconciler) noteSending(ctx context.Context, s *scope, accepted string) error {
	at := max(0, slices.IndexFunc(s.done.joined, func(object *v1beta1.HeadscalePolicy) bool {
		return object.Status.AppliedDigest == s.done.digests[object.UID]
	}))
	bearer := s.done.joined[at]
	statusOf := func(object *v1beta1.HeadscalePolicy) any { return &object.Status }
	note := func(object *v1beta1.HeadscalePolicy) {
		object.Status.SendingDigest = s.done.digest
		object.Status.PolicyDigest = cmp.Or(accepted, object.Status.PolicyDigest)
	}
	if _, _, err := status.Patch(ctx, r.Live, r.Client, bearer, fieldManager, statusOf, note); err != nil {
		return err
	}
	// The cache may not have it when it is taken back.
	noted := *bearer
	note(&noted)
	s.policies, s.done.joined = slices.Clone(s.policies), slices.Clone(s.done.joined)
	s.policies[slices.Index(s.policies, bearer)], s.done.joined[at] = &noted, &noted
	return nil
}

// report writes what came of a reconcile to the status of all objects, and decides when to
// reconcile again.
func (r *Reconciler) report(ctx context.Context, s *scope, err error) (reconcile.Result, error) {
	failed := status.Classify(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		// The operator is being stopped. Whatever failed, failed because of that.
		return reconcile.Result{}, nil
	case isOutdated(err) || instance.IsBusy(err) || failed != nil && failed.Outdated:
		return reconcile.Result{RequeueAfter: failed.RetryAfter}, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
	defer cancel()
	errs := []error{transient(failed)}
	result := reconcile.Result{}
	for _, object := range s.policies {
		own := failed
		if own == nil {
			own = status.Classify(s.done.problems[object.UID])
		}
		again, patchErr := r.reportOn(ctx, s, object, own)
		errs = append(errs, patchErr)
		if again > 0 && (result.RequeueAfter == 0 || again < result.RequeueAfter) {
			result.RequeueAfter = again
		}
	}
	if err := errors.Join(errs...); err != nil {
		return reconcile.Result{}, err
	}
	return withRefusal(s, result), nil
}

// transient is the error of a failure that is retried with backoff.
func transient(failed *status.Failure) error {
	if failed == nil {
		return nil
	}
	return failed.Transient
}

// withRefusal has a policy tried again that was refused.
func withRefusal(s *scope, result reconcile.Result) reconcile.Result {
	if s.unknown && (result.RequeueAfter == 0 || result.RequeueAfter > refusedRetry) {
		result.RequeueAfter = refusedRetry
	}
	refused := s.memory.refused
	if refused == nil || refused.digest != s.done.digest {
		return result
	}
	again := max(refused.until.Sub(s.now), time.Second)
	if result.RequeueAfter == 0 || again < result.RequeueAfter {
		result.RequeueAfter = again
	}
	return result
}

// reportOn writes the status of one object, and returns after which time it changes.
func (r *Reconciler) reportOn(ctx context.Context, s *scope, object *v1beta1.HeadscalePolicy, failed *status.Failure) (time.Duration, error) {
	ready := readiness(s, object, failed)
	statusOf := func(object *v1beta1.HeadscalePolicy) any { return &object.Status }
	before, after, err := status.Patch(ctx, r.Live, r.Client, object, fieldManager, statusOf, func(changed *v1beta1.HeadscalePolicy) {
		describeStatus(&changed.Status, s, object, ready, failed)
	})
	if err != nil {
		return 0, err
	}
	if before != nil {
		logChange(ctx, object.Name, &before.Status, &after.Status)
		status.Record(r.Events, after, eventsOf(s, object, &before.Status, &after.Status)...)
	}
	return status.RequeueAfter(s.now, ready.ChangesAt, failed), nil
}

// readiness is the condition Ready.
func readiness(s *scope, object *v1beta1.HeadscalePolicy, failed *status.Failure) status.Condition {
	if failed == nil {
		message := "Headscale has it as its policy"
		if others := len(s.done.joined) - 1; others > 0 {
			message = fmt.Sprintf("Headscale has it in its policy, joined with %d more", others)
		}
		return status.True(v1beta1.ReasonReady, message+warnings(s, object))
	}
	message := failed.Message
	toldOf := failed.Reason == v1beta1.ReasonRefused || failed.Reason == v1beta1.ReasonPolicyPending
	if notes := s.done.notes[object.UID]; toldOf && len(notes) > 0 {
		message += "; " + strings.Join(notes, "; ")
	}
	if failed.Reason != v1beta1.ReasonContested { // which says so itself
		message += s.done.foreign
	}
	ready := status.False(failed.Reason, message)
	if failed.Stalled() {
		return ready.Stall()
	}
	since := status.Since(object.Status.Conditions, v1beta1.ConditionReady, metav1.ConditionFalse, s.now)
	return ready.WithDeadline(since.Add(stalledAfter), s.now)
}

// warnings is what is probably not meant by an object, for the message of a Ready that is true.
func warnings(s *scope, object *v1beta1.HeadscalePolicy) string {
	notes := s.done.notes[object.UID]
	if len(notes) == 0 {
		return ""
	}
	return v1beta1.WarningsIntro + strings.Join(notes, "; ")
}

// describeStatus sets the fields of a status to what was found.
func describeStatus(reported *v1beta1.HeadscalePolicyStatus, s *scope, object *v1beta1.HeadscalePolicy, ready status.Condition, failed *status.Failure) {
	reported.ObservedGeneration = object.Generation
	if s.known {
		reported.SendingDigest = ""
	}
	if failed == nil {
		describeApplied(reported, s, object)
	}
	describeContest(reported, s, object, ready)
	status.Set(&reported.Conditions, v1beta1.ConditionReady, ready, object.Generation, s.now)
	message := status.Condition{Reason: ready.Reason, Message: ready.Message}
	message.True = failed != nil && !ready.Stalled
	status.SetWhileTrue(&reported.Conditions, v1beta1.ConditionReconciling, message, object.Generation, s.now)
	message.True = ready.Stalled
	status.SetWhileTrue(&reported.Conditions, v1beta1.ConditionStalled, message, object.Generation, s.now)
}

// describeContest notes whether somebody else is given way to. What else may be wrong meanwhile, such as that Headscale
// cannot be asked, does not end that.
func describeContest(reported *v1beta1.HeadscalePolicyStatus, s *scope, object *v1beta1.HeadscalePolicy, ready status.Condition) {
	switch {
	case s.done.inForce:
		meta.RemoveStatusCondition(&reported.Conditions, v1beta1.ConditionContested)
	case ready.Reason == v1beta1.ReasonContested:
		status.Set(&reported.Conditions, v1beta1.ConditionContested, status.True(ready.Reason, ready.Message), object.Generation, s.now)
	}
}

// describeApplied notes that Headscale has the object in its policy.
func describeApplied(reported *v1beta1.HeadscalePolicyStatus, s *scope, object *v1beta1.HeadscalePolicy) {
	now := metav1.NewTime(s.now.Truncate(time.Second))
	digest := s.done.digests[object.UID]
	if reported.AppliedAt == nil || reported.AppliedDigest != digest {
		reported.AppliedAt = &now
	}
	if reported.PolicyDigest != s.done.digest {
		reported.Corrections, reported.CorrectedAt = 0, nil
	}
	reported.AppliedDigest, reported.PolicyDigest = digest, s.done.digest
	if s.corrected {
		reported.Corrections, reported.CorrectedAt = corrections(s.policies, s.now)+1, &now
	}
}

// eventsOf are the events of a change of the status. They follow from what is stored, so that each
// is recorded once, whichever operator sees the change.
func eventsOf(s *scope, object *v1beta1.HeadscalePolicy, before, after *v1beta1.HeadscalePolicyStatus) []status.Event {
	events := status.Warnings(before.Conditions, after.Conditions, []string{v1beta1.ConditionReady}, warningReasons)
	sections := named(s.done.sections)
	if before.AppliedDigest != after.AppliedDigest {
		note := "Headscale had this policy already"
		if sections != "" {
			note = "Headscale accepted the policy; changed sections: " + sections
		}
		events = append(events, status.Event{Reason: v1beta1.EventPolicyApplied, Note: note})
	}
	if after.CorrectedAt != nil && !after.CorrectedAt.Equal(before.CorrectedAt) && object == s.done.joined[0] {
		events = append(events, status.Event{Warning: true, Reason: v1beta1.EventPolicyCorrected,
			Note: "Somebody else changed the policy, which was reverted; changed sections: " + sections})
	}
	if notes := s.done.notes[object.UID]; len(notes) > 0 && before.ObservedGeneration != after.ObservedGeneration {
		events = append(events, status.Event{Warning: true, Reason: v1beta1.EventPolicyWarning, Note: strings.Join(notes, "; ")})
	}
	return events
}

// logChange logs a change of the condition Ready.
func logChange(ctx context.Context, name string, before, after *v1beta1.HeadscalePolicyStatus) {
	was := meta.FindStatusCondition(before.Conditions, v1beta1.ConditionReady)
	is := meta.FindStatusCondition(after.Conditions, v1beta1.ConditionReady)
	if was == nil || was.Status != is.Status || was.Reason != is.Reason || was.Message != is.Message {
		log.FromContext(ctx).Info("Status changed", "policy", name, "ready", is.Status, "reason", is.Reason, "message", is.Message)
	}
}
