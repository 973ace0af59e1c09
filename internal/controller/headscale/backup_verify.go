package headscale

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/internal/resources"
)

// Times of verifications, besides spec.backup.verify_interval.
const (
	// firstVerification is how long after the start of an incarnation its backup is verified for
	// the first time, at the latest.
	firstVerification = 10 * time.Minute
	// How long after one that did not pass the next one begins, at first and at most.
	firstVerifyRetry, longestVerifyRetry = 5 * time.Minute, 6 * time.Hour
	// extraVerification is how long after the last one, at least, one begins that is not due: because
	// the storage went away, or came back.
	extraVerification = time.Hour
	// keyReplicated is how long after its creation an API key must be in the backup, besides the sync interval.
	keyReplicated = time.Minute
	// verifyPoll is how often the events of a Job without a pod are looked at.
	verifyPoll = time.Minute
	// verifyEnds is how long after its creation a Job has ended, or nobody runs it.
	verifyEnds = (resources.VerifyDeadline + 30) * time.Second
)

// verifyFacts are what follows for the verification of a backup.
type verifyFacts struct {
	// interval is how often it is done; zero: never.
	interval    time.Duration
	incarnation string
	// since is when the incarnation began.
	since time.Time
	// recorded is what the status says of the last one of any incarnation, or nil.
	recorded *v1beta1.BackupVerification
	// trouble is since when changes do not reach the storage, or zero: a verification then tells why.
	// recovered is when the last such time ended, or zero: what failed in it is tried again. Both at
	// once, but not within extraVerification of the last one.
	trouble, recovered time.Time
	// job is the one that there is, or nil, and result what it has shown.
	job    *batchv1.Job
	result verifyResult
	// podMissing is whether the Job has no pod, of which only events say why.
	podMissing bool
	// paused is whether none begins now: there is no pod that replicates, or it does not replicate
	// what is wanted.
	paused bool
	now    time.Time
}

// verifyResult is what a Job has shown. An empty outcome: nothing yet.
type verifyResult struct {
	outcome v1beta1.VerificationOutcome
	message string
	// rows are those of the database that was restored, nil where they could not be counted.
	rows *v1beta1.BackupRows
}

// verifyDecision says what is to be done about a verification.
type verifyDecision struct {
	// record is what the status is to say; nil: nothing.
	record *v1beta1.BackupVerification
	// start is whether a Job is created, and remove whether the one that there is is deleted.
	start, remove bool
	// until is when that is to be decided again; zero: when something changes.
	until time.Time
}

// decideVerification decides whether a backup is verified now. It is a function of its argument
// alone.
func decideVerification(f *verifyFacts) verifyDecision {
	d := verifyDecision{record: f.recorded, remove: f.job != nil}
	if f.recorded != nil && f.recorded.Incarnation != f.incarnation {
		d.record = nil
	}
	switch {
	case f.interval == 0:
		d.record = nil
		return d
	case f.job != nil && f.job.Annotations[resources.AnnotationVerifyIncarnation] != f.incarnation,
		f.job != nil && !f.job.DeletionTimestamp.IsZero(), f.job != nil && reported(d.record, f.job):
		d.until = f.now.Add(jobRetention)
		return d
	case f.job != nil && f.result.outcome == "":
		d.remove, d.until = false, f.job.CreationTimestamp.Add(verifyEnds+time.Second)
		if f.podMissing {
			d.until = status.Soonest(d.until, f.now.Add(verifyPoll))
		}
		return d
	case f.job != nil:
		d.record = concluded(f, d.record)
		// The Job stays until the status that reports it has reached the cache.
		d.remove, d.until = false, f.now.Add(jobRetention)
		return d
	}
	if f.paused {
		return d
	}
	due := dueAt(f, d.record)
	d.start = !f.now.Before(due)
	if !d.start {
		d.until = due
	}
	return d
}

// reported reports whether the status has what a Job has shown.
func reported(record *v1beta1.BackupVerification, job *batchv1.Job) bool {
	return record != nil && record.Job == string(job.UID)
}

// dueAt is when the next verification begins.
func dueAt(f *verifyFacts, last *v1beta1.BackupVerification) time.Time {
	if last == nil || last.EndedAt == nil {
		return f.since.Add(min(f.interval, firstVerification))
	}
	wait := f.interval
	if last.Outcome != v1beta1.VerificationPassed {
		wait = min(f.interval, verifyRetry(last.Attempts))
	}
	due := last.EndedAt.Add(wait)
	if last.EndedAt.Time.Before(f.trouble) || last.Outcome == v1beta1.VerificationFailed && last.EndedAt.Time.Before(f.recovered) {
		// Each restores the whole backup, however often a storage comes and goes.
		due = status.Soonest(due, last.EndedAt.Add(extraVerification))
	}
	return due
}

// verifyRetry is how long after one of several attempts that did not pass the next one begins.
func verifyRetry(attempts int32) time.Duration {
	return doubling(firstVerifyRetry, longestVerifyRetry, attempts)
}

// concluded is what the status says of a Job that has ended. One that could not run says nothing
// of the backup: what was known of it stays.
func concluded(f *verifyFacts, last *v1beta1.BackupVerification) *v1beta1.BackupVerification {
	ended := metav1.NewTime(f.now).Rfc3339Copy()
	next := &v1beta1.BackupVerification{
		Incarnation: f.incarnation, Job: string(f.job.UID), Outcome: f.result.outcome, EndedAt: &ended, Attempts: 1,
		Message: redact.Line(f.result.message, maxPreflightMessage),
	}
	if last != nil {
		next.VerifiedAt, next.Rows = last.VerifiedAt, last.Rows
	}
	switch {
	case f.result.outcome == v1beta1.VerificationPassed:
		// It has everything that was replicated when it began.
		began := f.job.CreationTimestamp.Rfc3339Copy()
		next.VerifiedAt, next.Rows, next.Attempts = &began, f.result.rows, 0
		return next
	case last != nil:
		next.Attempts = last.Attempts + 1
	}
	if last != nil && f.result.outcome == v1beta1.VerificationUnknown && last.Outcome == v1beta1.VerificationFailed {
		next.Outcome, next.Message = last.Outcome, last.Message
	}
	return next
}

// judgeVerification judges the Job of a verification by its pod, which may be nil. failedCreate is
// why Kubernetes did not create the pod, or "". Only what Litestream itself says is about the backup.
func judgeVerification(job *batchv1.Job, pod *corev1.Pod, failedCreate string, now time.Time) verifyResult {
	var container *corev1.ContainerStatus
	if pod != nil {
		container = containerStatus(pod, resources.ContainerRestore)
	}
	unknown := func(why string) verifyResult {
		return verifyResult{outcome: v1beta1.VerificationUnknown, message: why}
	}
	switch {
	case pod == nil && failedCreate != "":
		return unknown("Kubernetes refuses to create its pod: " + failedCreate)
	case container != nil && container.State.Terminated != nil && container.State.Terminated.ExitCode == 0:
		return judgeCount(job, pod, now)
	case pod != nil && disrupted(pod):
		return unknown(fmt.Sprintf("Kubernetes ended pod %s: %s", pod.Name, said(cmp.Or(pod.Status.Reason, "it is being deleted"), pod.Status.Message)))
	case container != nil && container.State.Terminated != nil:
		return judgeRestore(container.State.Terminated)
	case container != nil && container.State.Waiting != nil && cannotStart(container.State.Waiting.Reason):
		return unknown("its container cannot be started: " + said(container.State.Waiting.Reason, container.State.Waiting.Message))
	}
	for i := range job.Status.Conditions {
		if condition := &job.Status.Conditions[i]; condition.Type == batchv1.JobFailed && condition.Status == corev1.ConditionTrue {
			return unknown(fmt.Sprintf("Job %s failed: %s", job.Name, said(condition.Reason, condition.Message)) + whyPending(pod))
		}
	}
	if now.Sub(job.CreationTimestamp.Time) > verifyEnds {
		return unknown(fmt.Sprintf("Job %s has not ended within %v", job.Name, verifyEnds) + whyPending(pod))
	}
	return verifyResult{}
}

// judgeCount judges a verification that restored the backup: it has passed, whatever becomes of the
// count of its rows.
func judgeCount(job *batchv1.Job, pod *corev1.Pod, now time.Time) verifyResult {
	passed := verifyResult{outcome: v1beta1.VerificationPassed}
	if !slices.ContainsFunc(pod.Status.InitContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == resources.ContainerRestore }) {
		return passed
	}
	uncounted := func(why string) verifyResult {
		passed.message = "its rows were not counted: " + why
		return passed
	}
	container := containerStatus(pod, resources.ContainerCount)
	switch {
	case container != nil && container.State.Terminated != nil && container.State.Terminated.ExitCode == 0:
		var report v1beta1.BackupReport
		if err := json.Unmarshal([]byte(container.State.Terminated.Message), &report); err != nil {
			return uncounted("what counts them printed something else")
		}
		if report.HasAPIKey != nil && !*report.HasAPIKey {
			return verifyResult{outcome: v1beta1.VerificationFailed, message: "the restored database does not have the API key of Headscale's, so it is an old one, as where the storage is full, or another database. " +
				"Does something else write to this path? Then name another path in spec.backup.replica, where the whole database is replicated anew"}
		}
		passed.rows = &report.Rows
		return passed
	case disrupted(pod):
		return uncounted(fmt.Sprintf("Kubernetes ended pod %s", pod.Name))
	case container != nil && container.State.Terminated != nil:
		return uncounted(said(container.State.Terminated.Reason, redact.LastWords(container.State.Terminated.Message)))
	case container != nil && container.State.Waiting != nil && cannotStart(container.State.Waiting.Reason):
		return uncounted("its container cannot be started: " + said(container.State.Waiting.Reason, container.State.Waiting.Message))
	case now.Sub(job.CreationTimestamp.Time) > verifyEnds:
		return uncounted(fmt.Sprintf("Job %s has not ended within %v", job.Name, verifyEnds))
	}
	return verifyResult{}
}

// judgeRestore judges a Litestream that ended with an error by its last words.
func judgeRestore(end *corev1.ContainerStateTerminated) verifyResult {
	words := litestreamWords(redact.LastWords(end.Message))
	switch {
	case slices.Contains(neverRan, end.Reason):
		return verifyResult{outcome: v1beta1.VerificationUnknown, message: "its container cannot be started: " + said(end.Reason, end.Message)}
	case end.Reason == "OOMKilled":
		return verifyResult{outcome: v1beta1.VerificationUnknown, message: "it was killed because it used more memory than its limit allows: raise spec.pod.backup_resources.limits"}
	case words == "":
		words = fmt.Sprintf("it exited with code %d and printed nothing", end.ExitCode)
	}
	return verifyResult{outcome: v1beta1.VerificationFailed, message: words}
}

// litestreamError is what stands in Litestream's log before the error with which it ends.
var litestreamError = regexp.MustCompile(`^time=\S+ level=ERROR msg="failed to run" error=`)

// litestreamWords is the error in the last line of Litestream's log, without the time, so that the
// same failure has the same words.
func litestreamWords(line string) string {
	before := litestreamError.FindString(line)
	if before == "" {
		return line
	}
	words := strings.TrimPrefix(line, before)
	if plain, err := strconv.Unquote(words); err == nil {
		return redact.Line(redact.Secrets(plain), redact.MaxLastWords)
	}
	return strings.ReplaceAll(strings.Trim(words, `"`), `\"`, `"`)
}

// verifyBackup has the backup of a Headscale that runs restored into an empty directory, from time
// to time, and notes what became of that.
func (r *Reconciler) verifyBackup(ctx context.Context, s scope, o *observed, want *resources.Objects) error {
	facts, err := r.verifyFacts(ctx, s, o)
	if err != nil {
		return err
	}
	// What is wanted and not applied is no backup yet.
	facts.paused = facts.paused || !o.applied || !rollout(*o).True
	decision := decideVerification(facts)
	o.verification, o.verifyKnown, o.verifyAt = decision.record, true, decision.until
	switch {
	case decision.start:
		return r.startVerification(ctx, s, o, want, facts)
	case decision.remove:
		return apply.Delete[batchv1.Job](ctx, r.Client, r.Client, s.headscale, resources.VerifyName(s.headscale), client.PropagationPolicy(metav1.DeletePropagationBackground))
	}
	return nil
}

// startVerification creates the Job. That the API server refuses it is an attempt that could not run.
func (r *Reconciler) startVerification(ctx context.Context, s scope, o *observed, want *resources.Objects, facts *verifyFacts) error {
	job, err := resources.NewVerification(s.headscale, want, resources.Verification{
		Incarnation: facts.incarnation, Node: o.pod.Spec.NodeName, OperatorsImage: r.Options.ManagerImage, KeyPrefix: replicatedKey(s, o),
	})
	if err != nil {
		return fmt.Errorf("building the verification of the backup: %w", err)
	}
	err = r.createJob(ctx, s, job)
	if !inconclusive(err) {
		return err
	}
	facts.job = &batchv1.Job{}
	facts.result = verifyResult{outcome: v1beta1.VerificationUnknown, message: redact.Secrets(err.Error())}
	o.verification = concluded(facts, o.verification)
	facts.job = nil
	o.verifyAt = dueAt(facts, o.verification)
	return nil
}

// replicatedKey is the prefix of an API key that the backup must have, or "" where none is known: a
// Litestream of somebody else's that writes to the same path brings another database there, which is
// whole. While nothing reaches the storage, what is there may be older than the key.
func replicatedKey(s scope, o *observed) string {
	conditions := s.headscale.Status.Conditions
	if o.secret == nil || status.ReasonOf(conditions, v1beta1.ConditionAPIKeyReady) != v1beta1.ReasonKeyValid ||
		status.ReasonOf(conditions, v1beta1.ConditionBackedUp) == v1beta1.ReasonNotReplicating {
		return ""
	}
	created, err := time.Parse(time.RFC3339, o.secret.Annotations[v1beta1.AnnotationCreatedAt])
	if err != nil || s.now.Sub(created) < keyReplicated+syncIntervalOf(s.headscale) {
		return ""
	}
	return o.secret.Annotations[v1beta1.AnnotationKeyPrefix]
}

// verifyFacts reads what is known of a verification. There is none of a database that is not
// replicated now.
func (r *Reconciler) verifyFacts(ctx context.Context, s scope, o *observed) (*verifyFacts, error) {
	facts := &verifyFacts{now: s.now, recorded: s.headscale.Status.BackupVerification}
	if spec := s.headscale.Spec.Backup; spec != nil && o.backup != nil && o.backup.StartedAt != nil {
		facts.incarnation, facts.since = o.backup.Incarnation, o.backup.StartedAt.Time
		interval, err := spec.VerifyInterval.Parse()
		if err != nil {
			return nil, err
		}
		facts.interval = interval
	}
	if track := r.backups.known(client.ObjectKeyFromObject(s.headscale)); facts.interval > 0 && resources.CountsUploads(s.headscale.Spec.Backup.Replica.Type) {
		facts.trouble, facts.recovered = track.trouble(), track.recovered
	}
	job := &batchv1.Job{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.headscale.Namespace, Name: resources.VerifyName(s.headscale)}, job)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("reading the Job that verifies the backup: %w", err)
	}
	if err != nil || !metav1.IsControlledBy(job, s.headscale) {
		// That a Job is somebody else's is an attempt that could not run.
		facts.paused = o.pod == nil || !behindGate(o.pod) || !litestreamRuns(o.pod)
		return facts, nil
	}
	facts.job = job
	pod, failedCreate, err := r.podOfJob(ctx, job, resources.VerifyLabels(s.headscale))
	if err != nil {
		return nil, err
	}
	facts.podMissing = pod == nil
	facts.result = judgeVerification(job, pod, failedCreate, s.now)
	return facts, nil
}
