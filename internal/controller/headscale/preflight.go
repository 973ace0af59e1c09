package headscale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	batchv1ac "k8s.io/client-go/applyconfigurations/batch/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/internal/resources"
)

// preflight is the state of the preflight of a change in one reconcile.
type preflight struct {
	// known is whether it is known if a preflight is needed, and record what the status is to
	// say of one; nil: none is needed.
	known  bool
	record *v1beta1.PreflightStatus
	// remove is whether no Job is to run: its result is recorded, or there is none.
	remove bool
}

// describe is what the status is to say, by what it says: of a change that was applied, its
// outcome stays known. A change that is held up counts until one is applied, also where the
// operator itself refuses the next: the one after it is checked, too.
func (p *preflight) describe(said *v1beta1.PreflightStatus, applied bool) *v1beta1.PreflightStatus {
	switch {
	case p.record != nil:
		return p.record
	case !applied && undecided(said):
		return said
	case p.known && said != nil && said.Digest != "":
		return nil
	default:
		return said
	}
}

// heldError says why a change does not reach the StatefulSet.
type heldError struct {
	reason, message string
	// after is how long until the next reconcile; zero: when something changes.
	after time.Duration
	// waiting is whether it ends by itself.
	waiting bool
}

// Error is the message.
func (e *heldError) Error() string { return e.message }

// Reason is the reason of the condition that reports it.
func (e *heldError) Reason() string { return e.reason }

// RetryAfter is how long until the next reconcile.
func (e *heldError) RetryAfter() time.Duration { return e.after }

// Waiting says whether it ends by itself.
func (e *heldError) Waiting() bool { return e.waiting }

// tryOut is called before the StatefulSet is created or changed. If the change could take down a
// Headscale that is ready, a preflight checks it first, and the change is held up until the
// preflight has passed.
func (r *Reconciler) tryOut(ctx context.Context, s scope, o *observed, want *resources.Objects, live, planned *appsv1.StatefulSet) error {
	var err error
	if o.policy, err = r.storedPolicy(ctx, s, want); err != nil {
		return err
	}
	candidate, err := resources.NewPreflight(s.headscale, want, attemptFor(*o, 1))
	if err != nil {
		return fmt.Errorf("building the preflight: %w", err)
	}
	if live == nil && undecided(s.headscale.Status.Preflight) {
		if o.pod, err = r.orphan(ctx, s); err != nil {
			return err
		}
	}
	if !needsPreflight(s, *o, candidate.Digest, live, planned) {
		return nil
	}
	facts, err := r.preflightFacts(ctx, s, candidate.Digest)
	if err != nil {
		return err
	}
	facts.policyUnknown = o.policy.unknown
	decision := decidePreflight(facts)
	if decision.start {
		if err := r.startPreflight(ctx, s, *o, want, facts, &decision); err != nil {
			return err
		}
	}
	o.preflight = preflight{known: true, record: &decision.record, remove: decision.remove || facts.job == nil && !decision.start}
	if decision.hold {
		return heldUp(s, *o, &decision)
	}
	return nil
}

// needsPreflight reports whether a change needs a preflight: it changes how Headscale runs, and a
// Headscale is running. A preflight that has begun continues even if that pod is restarted
// meanwhile.
func needsPreflight(s scope, o observed, digest string, live, planned *appsv1.StatefulSet) bool {
	if s.headscale.Spec.Preflight == v1beta1.PreflightNever || stopped(s.headscale) {
		return false
	}
	if live == nil {
		return o.pod != nil && undecided(s.headscale.Status.Preflight)
	}
	if live.Spec.Replicas != nil && *live.Spec.Replicas == 0 {
		return false
	}
	if planned != nil && resources.SamePod(&live.Spec.Template, &planned.Spec.Template) {
		return false
	}
	last := s.headscale.Status.Preflight
	return begunBefore(last, digest) || undecided(last) || availability(s, o).True || readyLately(s)
}

// undecided reports whether a change was held up last, be it this one or another: the pod that
// runs is one that was to be kept.
func undecided(last *v1beta1.PreflightStatus) bool {
	return last != nil && last.Digest != "" && slices.Contains([]v1beta1.PreflightOutcome{
		v1beta1.PreflightRunning, v1beta1.PreflightRefused, v1beta1.PreflightUnknown,
	}, last.Outcome)
}

// readyLately reports whether Headscale was ready a moment ago: its pod is replaced or drained.
func readyLately(s scope) bool {
	return s.headscale.Status.Version != "" && s.now.Sub(falseSince(s, v1beta1.ConditionAvailable)) < startGrace
}

// orphan reads the pod of a StatefulSet that was deleted without it, which one that is created
// would replace; nil where there is none. The cache may still have it with its owner.
func (r *Reconciler) orphan(ctx context.Context, s scope) (*corev1.Pod, error) {
	pods := &corev1.PodList{} // The operator may list pods, and not get one.
	err := r.Live.List(ctx, pods, client.InNamespace(s.headscale.Namespace), client.MatchingFields{metav1.ObjectNameField: resources.PodName(s.headscale)})
	if err != nil {
		return nil, fmt.Errorf("reading the pod: %w", err)
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; metav1.GetControllerOf(pod) == nil && pod.DeletionTimestamp.IsZero() {
			return pod, nil
		}
	}
	return nil, nil
}

// preflightFacts reads the inputs of a decision about a preflight.
func (r *Reconciler) preflightFacts(ctx context.Context, s scope, digest string) (*preflightFacts, error) {
	facts := &preflightFacts{
		mode: s.headscale.Spec.Preflight, generation: s.headscale.Generation,
		digest: digest, recorded: s.headscale.Status.Preflight, now: s.now,
	}
	job := &batchv1.Job{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.headscale.Namespace, Name: resources.PreflightName(s.headscale)}, job)
	if apierrors.IsNotFound(err) {
		return facts, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the Job of the preflight: %w", err)
	}
	if !metav1.IsControlledBy(job, s.headscale) {
		return facts, nil
	}
	facts.job = job
	pod, failedCreate, err := r.podOfJob(ctx, job, resources.PreflightLabels(s.headscale))
	if err != nil {
		return nil, err
	}
	facts.podMissing = pod == nil
	facts.result = judgeAttempt(job, pod, failedCreate, s.now)
	return facts, nil
}

// podOfJob finds the pod of a Job by its labels. Where there is none, it is nil, and failedCreate is why
// Kubernetes did not create it, or "" where its events say nothing or may not be read.
func (r *Reconciler) podOfJob(ctx context.Context, job *batchv1.Job, labels client.MatchingLabels) (pod *corev1.Pod, failedCreate string, err error) {
	pods := &corev1.PodList{}
	if err := r.Client.List(ctx, pods, client.InNamespace(job.Namespace), labels); err != nil {
		return nil, "", fmt.Errorf("listing the pods of Job %s: %w", job.Name, err)
	}
	for i := range pods.Items {
		if metav1.IsControlledBy(&pods.Items[i], job) {
			return &pods.Items[i], "", nil
		}
	}
	failedCreate, err = r.failedCreateOf(ctx, job, job.CreationTimestamp.Time)
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, "", err
	}
	return nil, failedCreate, nil
}

// attemptFor is the attempt of a number.
func attemptFor(o observed, number int32) resources.Attempt {
	attempt := resources.Attempt{Number: number, LiveReferences: o.liveReferences, Policy: o.policy.text}
	if o.pod != nil {
		attempt.Node = o.pod.Spec.NodeName
	}
	return attempt
}

// startPreflight begins an attempt: first the config, and then the Job that mounts it. What the
// API server answers with an error is an inconclusive attempt.
func (r *Reconciler) startPreflight(ctx context.Context, s scope, o observed, want *resources.Objects, facts *preflightFacts, d *preflightDecision) error {
	attempt := d.record.Attempts + 1
	candidate, err := resources.NewPreflight(s.headscale, want, attemptFor(o, attempt))
	if err != nil {
		return fmt.Errorf("building the preflight: %w", err)
	}
	clients := r.clients()
	// The cache may still have one that was deleted a moment ago.
	clients.Cache = r.Live
	plan := apply.NewPlan(clients, s.headscale, FieldManager)
	apply.Add(ctx, plan, candidate.ConfigMap, configMaps)
	if err = plan.Execute(ctx); err == nil {
		err = r.createJob(ctx, s, candidate.Job)
	}
	if !inconclusive(err) {
		return err
	}
	d.fail(facts, attempt, redact.Line(redact.Secrets(err.Error()), maxQuote))
	return nil
}

// inconclusive reports whether an attempt ends with an error: with any that the API server
// answered, but for one that is gone with the next reconcile.
func inconclusive(err error) bool {
	if _, taken := errors.AsType[*apply.ForeignError](err); taken {
		return true
	}
	_, answered := errors.AsType[*apierrors.StatusError](err)
	return answered && !apierrors.IsConflict(err)
}

// createJob creates a Job. One that is there already was created by another
// operator, or is not in the cache yet.
func (r *Reconciler) createJob(ctx context.Context, s scope, job *batchv1ac.JobApplyConfiguration) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(job)
	if err != nil {
		return fmt.Errorf("encoding Job %s: %w", *job.Name, err)
	}
	err = r.Client.Create(ctx, &unstructured.Unstructured{Object: fields}, client.FieldOwner(FieldManager))
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	live := &batchv1.Job{}
	if err := r.Live.Get(ctx, client.ObjectKey{Namespace: s.headscale.Namespace, Name: *job.Name}, live); err != nil {
		return client.IgnoreNotFound(err)
	}
	if !metav1.IsControlledBy(live, s.headscale) {
		return &apply.ForeignError{Owner: s.headscale, Objects: []string{apply.Name(job)}}
	}
	return nil
}

// prunePreflight deletes what a preflight that is over has left.
func (r *Reconciler) prunePreflight(ctx context.Context, s scope) error {
	name := resources.PreflightName(s.headscale)
	return errors.Join(
		apply.Delete[batchv1.Job](ctx, r.Client, r.Client, s.headscale, name, client.PropagationPolicy(metav1.DeletePropagationBackground)),
		apply.Delete[corev1.ConfigMap](ctx, r.Client, r.Client, s.headscale, name),
	)
}

// endPreflight deletes what is no longer needed after an apply, or for a spec that cannot be
// applied. After a transient error it deletes nothing.
func (r *Reconciler) endPreflight(ctx context.Context, s scope, o *observed, err error) error {
	p := &o.preflight
	failed := status.Classify(err)
	needed := failed != nil && (failed.Transient != nil || failed.Outdated)
	if p.record != nil {
		needed = failed != nil && !p.remove
	}
	if needed {
		return nil
	}
	if p.record != nil && failed == nil {
		// The same change, made again later, gets another preflight.
		p.record.Digest = ""
	}
	p.known = true
	return r.prunePreflight(ctx, s)
}

// heldUp says why a change is held up, and what runs meanwhile.
func heldUp(s scope, o observed, d *preflightDecision) error {
	record := &d.record
	held := &heldError{reason: record.Reason}
	if !d.until.IsZero() {
		held.after = max(d.until.Sub(s.now), time.Millisecond)
	}
	subject, runs := whatIsHeld(s, o)
	again := ""
	switch {
	case record.Outcome == v1beta1.PreflightRefused:
		again = fmt.Sprintf(". It is tried again every %d minutes", int(longestPreflightRetry.Minutes()))
	case record.RetryAt != nil:
		again = fmt.Sprintf(". It is tried again at %s", text(record.RetryAt.Time))
	}
	switch {
	case record.Outcome == v1beta1.PreflightRefused && record.Reason == v1beta1.ReasonInvalidConfig:
		held.message = fmt.Sprintf("Headscale %s does not start with %s, so %s: %s%s", s.headscale.Spec.Version, subject, runs, record.Message, again)
	case record.Outcome == v1beta1.PreflightRefused:
		held.message = fmt.Sprintf("The pod would not start with %s, so %s: %s%s", subject, runs, record.Message, again)
	case record.Outcome == v1beta1.PreflightUnknown:
		held.reason, held.waiting = v1beta1.ReasonPreflightUnknown, !d.overdue
		held.message = fmt.Sprintf("Unknown whether Headscale %s starts with %s, so %s: %s%s%s",
			s.headscale.Spec.Version, subject, runs, record.Message, again, afterLimit(s, d))
	default:
		held.reason, held.waiting = v1beta1.ReasonProgressing, !d.overdue
		held.message = fmt.Sprintf("Job %s checks that Headscale %s starts with %s; meanwhile %s%s",
			resources.PreflightName(s.headscale), s.headscale.Spec.Version, subject, runs, record.Message)
	}
	return held
}

// whatIsHeld names the change that is held up, and says what runs meanwhile.
func whatIsHeld(s scope, o observed) (subject, runs string) {
	pod, applied := resources.PodName(s.headscale), s.headscale.Status.AppliedGeneration
	switch {
	case applied == s.headscale.Generation && len(o.replaced) > 0:
		return "the changed " + strings.Join(o.replaced, ", "), fmt.Sprintf("pod %s keeps running as it was started, until something restarts it", pod)
	case applied > 0:
		return fmt.Sprintf("generation %d of the spec", s.headscale.Generation), fmt.Sprintf("pod %s keeps running generation %d", pod, applied)
	default:
		return fmt.Sprintf("generation %d of the spec", s.headscale.Generation), fmt.Sprintf("pod %s is left as it is", pod)
	}
}

// afterLimit says what happens if the preflight is inconclusive for too long.
func afterLimit(s scope, d *preflightDecision) string {
	if s.headscale.Spec.Preflight == v1beta1.PreflightAlways {
		return "; spec.preflight: Never applies the change without a preflight"
	}
	return fmt.Sprintf("; the change is applied without a preflight if that is still so after %s", text(deadlineOf(&d.record)))
}
