package headscale

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/internal/resources"
)

// preflightEnds is how long after its creation a Job of a preflight has ended, or nobody runs
// it: its deadline, and some time for Kubernetes to say so.
const preflightEnds = (resources.PreflightDeadline + 30) * time.Second

// attemptResult is the result of one attempt of a preflight.
type attemptResult struct {
	// outcome is PreflightRunning, PreflightPassed, PreflightRefused or PreflightUnknown.
	outcome v1beta1.PreflightOutcome
	// reason is that of a refusal, and message says why, or what is waited for.
	reason, message string
}

// judgeAttempt derives the result of an attempt from its Job and its pod, which may be nil. failedCreate is why
// Kubernetes did not create the pod, or "".
func judgeAttempt(job *batchv1.Job, pod *corev1.Pod, failedCreate string, now time.Time) attemptResult {
	var container, litestream *corev1.ContainerStatus
	if pod != nil {
		container, litestream = containerStatus(pod, resources.ContainerHeadscale), containerStatus(pod, resources.ContainerBackup)
	}
	ended := endOfJob(job, now)
	switch {
	case pod == nil && failedCreate != "":
		return attemptResult{outcome: v1beta1.PreflightUnknown, message: "Kubernetes refuses to create its pod: " + failedCreate}
	case container != nil && container.Ready:
		return attemptResult{outcome: v1beta1.PreflightPassed}
	case pod != nil && disrupted(pod):
		return attemptResult{outcome: v1beta1.PreflightUnknown, message: cmp.Or(ended, fmt.Sprintf(
			"Kubernetes ended pod %s: %s", pod.Name, said(cmp.Or(pod.Status.Reason, "it is being deleted"), pod.Status.Message)))}
	case litestream != nil && litestream.State.Terminated != nil && litestream.State.Terminated.ExitCode != 0:
		return judgeLitestream(litestream.State.Terminated)
	case litestream != nil && litestream.State.Waiting != nil && cannotStart(litestream.State.Waiting.Reason):
		return ofLitestream.judgeWaiting(litestream)
	case container != nil && container.State.Terminated != nil:
		return judgeEnd(container.State.Terminated)
	case container != nil && container.State.Waiting != nil && cannotStart(container.State.Waiting.Reason):
		return ofHeadscale.judgeWaiting(container)
	case ended != "":
		return attemptResult{outcome: v1beta1.PreflightUnknown, message: ended + whyPending(pod)}
	default:
		return attemptResult{outcome: v1beta1.PreflightRunning, message: whyPending(pod)}
	}
}

// endOfJob says that a Job ended without a result of its pod, or "".
func endOfJob(job *batchv1.Job, now time.Time) string {
	for i := range job.Status.Conditions {
		if condition := &job.Status.Conditions[i]; condition.Type == batchv1.JobFailed && condition.Status == corev1.ConditionTrue {
			return fmt.Sprintf("Job %s failed: %s", job.Name, said(condition.Reason, condition.Message))
		}
	}
	if now.Sub(job.CreationTimestamp.Time) > preflightEnds {
		return fmt.Sprintf("Job %s has not ended within %v", job.Name, preflightEnds)
	}
	return ""
}

// disrupted reports whether a pod was ended by something else than its program: a drain, an
// eviction, a lost node.
func disrupted(pod *corev1.Pod) bool {
	target := podCondition(pod, corev1.DisruptionTarget)
	return target != nil && target.Status == corev1.ConditionTrue || !pod.DeletionTimestamp.IsZero() ||
		pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != ""
}

// whyPending says why a pod does not start, as the end of a sentence, or "".
func whyPending(pod *corev1.Pod) string {
	if pod == nil {
		return ""
	}
	if scheduled := podCondition(pod, corev1.PodScheduled); scheduled != nil && scheduled.Status == corev1.ConditionFalse {
		return fmt.Sprintf("; no node accepts pod %s%s", pod.Name, quote(scheduled))
	}
	return ""
}

// cannotStart reports whether a container that waits for this reason will never start.
func cannotStart(reason string) bool {
	return slices.Contains(imageReasons, reason) || slices.Contains(startReasons, reason)
}

// program is one that a preflight runs, in the sentences about an attempt: its name, its container and its image, and the
// field with the limit of its memory.
type program struct{ name, container, image, limits string }

var (
	ofHeadscale  = program{"it", "its container", "image", "spec.pod.resources.limits"}
	ofLitestream = program{"Litestream", "Litestream's container", "Litestream's image", "spec.pod.backup_resources.limits"}
)

// judgeWaiting returns the result for a container that cannot be started.
func (p program) judgeWaiting(container *corev1.ContainerStatus) attemptResult {
	waiting := container.State.Waiting
	refused := p.cannotBeStarted(waiting.Reason, waiting.Message)
	if slices.Contains(imageReasons, waiting.Reason) {
		refused.reason = v1beta1.ReasonImagePullFailed
		refused.message = fmt.Sprintf("failed to pull %s %s: %s", p.image, container.Image, said(waiting.Reason, waiting.Message))
	}
	return refused
}

// cannotBeStarted refuses a container whose program did not run, by the words of the kubelet.
func (p program) cannotBeStarted(reason, message string) attemptResult {
	return attemptResult{outcome: v1beta1.PreflightRefused, reason: v1beta1.ReasonCannotStart, message: p.container + " cannot be started: " + said(reason, message)}
}

// refuse returns the result for a program that exited, whose last words are known. It reports whether these are why.
func (p program) refuse(end *corev1.ContainerStateTerminated, words string) (refused attemptResult, bySelf bool) {
	refused = attemptResult{outcome: v1beta1.PreflightRefused, reason: v1beta1.ReasonInvalidConfig, message: words}
	switch {
	case slices.Contains(neverRan, end.Reason):
		return p.cannotBeStarted(end.Reason, redact.Line(redact.Secrets(end.Message), maxQuote)), false
	case end.Reason == "OOMKilled":
		refused.message = p.name + " was killed because it used more memory than its limit allows: raise " + p.limits
	case words == "":
		refused.message = fmt.Sprintf("%s exited with code %d and printed nothing", p.name, end.ExitCode)
	default:
		bySelf = true
	}
	return refused, bySelf
}

// judgeLitestream returns the result for a Litestream that could not read its config. It has asked
// nobody, so its word is final.
func judgeLitestream(end *corev1.ContainerStateTerminated) attemptResult {
	refused, bySelf := ofLitestream.refuse(end, litestreamWords(redact.LastWords(end.Message)))
	if bySelf {
		refused.message = "Litestream refuses spec.backup: " + refused.message
	}
	return refused
}

// unreachable matches Go's errors for a server that did not answer, which may be transient.
var unreachable = regexp.MustCompile(`(?i)connection refused|connection reset|i/o timeout|deadline exceeded|Client\.Timeout|TLS handshake timeout|` +
	`network is unreachable|no route to host|server misbehaving|unexpected EOF|: EOF|\b(429 Too Many Requests|50[0234] [A-Z])`)

// unknownHost is Go's error for a name that does not exist, which is usually a mistake in the spec.
const unknownHost = "no such host"

// ofDERPMap are the words of Headscale v0.26 about a DERP map that it could not get. It ends
// because the map is empty, and says why before that.
var ofDERPMap = regexp.MustCompile(`(?m)^.*Could not load DERP map.*$`)

// judgeEnd returns the result for a Headscale that exited, by its last log lines.
func judgeEnd(end *corev1.ContainerStateTerminated) attemptResult {
	words := redact.LastWords(end.Message)
	decisive := words
	if strings.Contains(words, "DERPMap is empty") {
		decisive += "\n" + strings.Join(ofDERPMap.FindAllString(end.Message, -1), "\n")
	}
	refused, bySelf := ofHeadscale.refuse(end, words)
	if bySelf && !strings.Contains(decisive, unknownHost) && unreachable.MatchString(decisive) {
		return attemptResult{outcome: v1beta1.PreflightUnknown, message: words}
	}
	return refused
}

// attemptOf is which attempt of a preflight a Job is; 0 where it does not say.
func attemptOf(job *batchv1.Job) int32 {
	attempt, err := strconv.ParseInt(job.Annotations[resources.AnnotationPreflightAttempt], 10, 32)
	if err != nil {
		return 0
	}
	return int32(attempt)
}

// How long after an attempt that was inconclusive the next one begins, at first and at most. It is
// also the time after a refusal: the cause may be outside the spec, such as at an OIDC issuer, and
// be fixed there.
const (
	firstPreflightRetry   = 10 * time.Second
	longestPreflightRetry = 5 * time.Minute
)

// preflightRetry is how long after the end of an attempt the next one begins.
func preflightRetry(attempts int32) time.Duration {
	return doubling(firstPreflightRetry, longestPreflightRetry, attempts)
}

// doubling is how long after one of several attempts the next one begins: twice as long each time.
func doubling(first, longest time.Duration, attempts int32) time.Duration {
	wait := first
	for range attempts - 1 {
		if wait *= 2; wait > longest {
			return longest
		}
	}
	return wait
}

// preflightFacts are the inputs of a decision about a preflight that is needed.
type preflightFacts struct {
	mode       v1beta1.PreflightMode
	generation int64
	digest     string
	// recorded is what the status says of the last preflight, or nil.
	recorded *v1beta1.PreflightStatus
	// job is the one that there is, or nil, and result what it has shown. podMissing is whether
	// it has no pod, of which only events say why.
	job        *batchv1.Job
	result     attemptResult
	podMissing bool
	// policyUnknown says why the policy is not known that Headscale would find, or is "".
	policyUnknown string
	now           time.Time
}

// preflightDecision is the decision about a preflight that is needed.
type preflightDecision struct {
	// record is what the status is to say.
	record v1beta1.PreflightStatus
	// hold is whether the change is held up, and until when that is not looked at again; zero:
	// until something changes.
	hold  bool
	until time.Time
	// start is whether an attempt begins, and remove whether the Job is no longer needed.
	start, remove bool
	// overdue is whether it is inconclusive for longer than progressDeadline, and is to be
	// completed nevertheless.
	overdue bool
}

// jobRetention is how long a Job that was judged stays, so that the status that reports it
// has reached the cache: without either it would be run once more.
const jobRetention = time.Second

// decidePreflight decides whether a change may be applied, and whether an attempt begins.
func decidePreflight(f *preflightFacts) preflightDecision {
	d := preflightDecision{record: recordOf(f), hold: true}
	switch last := d.record; {
	case last.Outcome == v1beta1.PreflightSkipped, last.Outcome == v1beta1.PreflightPassed:
		// Decided, and not applied yet.
		d.hold = false
	case stuck(f.job, f.now):
		d.cannotBegin(f, whyStuck(f.job))
	case f.policyUnknown != "":
		// What a Job has shown, it has shown with another policy.
		d.remove = f.job != nil
		d.cannotBegin(f, f.policyUnknown)
	case f.job != nil && f.job.Annotations[resources.AnnotationPreflightDigest] != f.digest:
		// The spec has changed meanwhile.
		d.remove = true
	case f.job != nil && attemptOf(f.job) <= last.Attempts:
		d.remove = true
	case f.job != nil:
		d.conclude(f)
	}
	d.wait(f)
	return d
}

// begunBefore reports whether a record is of a candidate that has not been applied since.
func begunBefore(record *v1beta1.PreflightStatus, digest string) bool {
	return record != nil && record.Digest == digest
}

// refusedBefore reports whether this generation was refused, maybe with another policy than the
// one that is not known now: it is not known either that it would start.
func refusedBefore(f *preflightFacts) bool {
	last := f.recorded
	return f.policyUnknown != "" && last != nil && last.Digest != "" && last.Generation == f.generation && last.Outcome == v1beta1.PreflightRefused
}

// recordOf is what the status says of this very candidate, or the beginning of it.
func recordOf(f *preflightFacts) v1beta1.PreflightStatus {
	began := metav1.NewTime(f.now.Truncate(time.Second))
	if last := f.recorded; begunBefore(last, f.digest) || refusedBefore(f) {
		record := *last.DeepCopy()
		record.Generation = f.generation
		if record.StartedAt == nil {
			record.StartedAt = &began
		}
		return record
	}
	return v1beta1.PreflightStatus{Generation: f.generation, Digest: f.digest, Outcome: v1beta1.PreflightRunning, StartedAt: &began}
}

// conclude records the result of an attempt, if there is one.
func (d *preflightDecision) conclude(f *preflightFacts) {
	result, record := f.result, &d.record
	switch result.outcome {
	case v1beta1.PreflightPassed:
		d.hold = false
		*record = v1beta1.PreflightStatus{Generation: f.generation, Digest: f.digest, Outcome: v1beta1.PreflightPassed, StartedAt: record.StartedAt}
	case v1beta1.PreflightRefused, v1beta1.PreflightUnknown:
		d.end(f, attemptOf(f.job), result)
		d.until = f.now.Add(jobRetention)
	default:
		if record.Outcome == v1beta1.PreflightRunning {
			record.Message = redact.Line(result.message, maxPreflightMessage)
		}
		d.until = f.job.CreationTimestamp.Add(preflightEnds + time.Second)
		if f.podMissing {
			d.until = status.Soonest(d.until, f.now.Add(pollEvents))
		}
	}
}

// end takes over what an attempt has shown that did not pass. An inconclusive attempt does
// not take back a refusal. After progressDeadline it has the change made without a preflight,
// where that is allowed: the last attempt begins then at the latest.
func (d *preflightDecision) end(f *preflightFacts, attempt int32, result attemptResult) {
	record := &d.record
	retry := f.now.Add(longestPreflightRetry)
	if result.outcome == v1beta1.PreflightUnknown {
		retry = f.now.Add(preflightRetry(attempt))
	}
	record.Attempts = attempt
	if record.Outcome != v1beta1.PreflightRefused || result.outcome != v1beta1.PreflightUnknown {
		record.Outcome, record.Reason = result.outcome, result.reason
		record.Message = redact.Line(result.message, maxPreflightMessage)
	}
	if limit := deadlineOf(record); record.Outcome == v1beta1.PreflightUnknown && f.mode != v1beta1.PreflightAlways {
		if !f.now.Before(limit) {
			d.hold = false
			record.Outcome, record.RetryAt = v1beta1.PreflightSkipped, nil
			return
		}
		retry = status.Soonest(retry, limit)
	}
	at := metav1.NewTime(retry.Truncate(time.Second))
	record.RetryAt = &at
}

// deadlineOf is until when a preflight may be inconclusive.
func deadlineOf(record *v1beta1.PreflightStatus) time.Time {
	return record.StartedAt.Add(progressDeadline)
}

// fail records an attempt that the cluster prevented.
func (d *preflightDecision) fail(f *preflightFacts, attempt int32, why string) {
	d.end(f, attempt, attemptResult{outcome: v1beta1.PreflightUnknown, message: why})
	if d.record.RetryAt != nil {
		d.until = status.Soonest(d.record.RetryAt.Time, d.until)
	}
}

// stuckAfter is how long a Job that is being deleted may stay, until that counts as an attempt.
const stuckAfter = 30 * time.Second

// stuck reports whether a Job that is being deleted stays, so that no other can be created.
func stuck(job *batchv1.Job, now time.Time) bool {
	return job != nil && job.DeletionTimestamp != nil && now.Sub(job.DeletionTimestamp.Time) >= stuckAfter
}

// cannotBegin is an attempt that something does not let begin, whenever one is due.
func (d *preflightDecision) cannotBegin(f *preflightFacts, why string) {
	if retry := d.record.RetryAt; retry != nil && f.now.Before(retry.Time) {
		d.until = status.Soonest(d.until, retry.Time)
		return
	}
	d.fail(f, d.record.Attempts+1, why)
}

// whyStuck says why a Job that is being deleted remains, and what to do.
func whyStuck(job *batchv1.Job) string {
	since := fmt.Sprintf("Job %s is being deleted since %s, and remains because of ", job.Name, text(job.DeletionTimestamp.Time))
	if slices.Contains(job.Finalizers, metav1.FinalizerDeleteDependents) {
		return since + fmt.Sprintf("its pod, which remains, too (finalizers: %s): see kubectl describe pods --selector=%s=%s",
			strings.Join(job.Finalizers, ", "), batchv1.JobNameLabel, job.Name)
	}
	return since + fmt.Sprintf("its finalizers (%s): remove them with kubectl edit job %s", strings.Join(job.Finalizers, ", "), job.Name)
}

// maxPreflightMessage is how much is kept of what an attempt has shown, in bytes: less than the
// API allows, as a line may grow when it is sanitized.
const maxPreflightMessage = 2 << 10

// wait decides what happens while a change is held up: when the next attempt begins.
func (d *preflightDecision) wait(f *preflightFacts) {
	if !d.hold {
		return
	}
	if limit := deadlineOf(&d.record); d.record.Outcome != v1beta1.PreflightRefused && f.mode == v1beta1.PreflightAlways {
		if d.overdue = !f.now.Before(limit); !d.overdue {
			d.until = status.Soonest(d.until, limit)
		}
	}
	switch retry := d.record.RetryAt; {
	case f.job != nil && f.job.DeletionTimestamp != nil && !stuck(f.job, f.now):
		d.until = status.Soonest(d.until, f.job.DeletionTimestamp.Add(stuckAfter))
	case f.job != nil:
	case retry != nil && f.now.Before(retry.Time):
		d.until = status.Soonest(d.until, retry.Time)
	default:
		d.start = true
		d.until = status.Soonest(d.until, f.now.Add(preflightEnds+time.Second))
	}
}
