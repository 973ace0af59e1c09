package headscale

import (
	"cmp"
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/resources"
)

// preflightBegan is when the first attempt begins in these tests.
var preflightBegan = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// attemptJob is the Job of an attempt for a candidate, as old as that.
func attemptJob(digest string, attempt int, age time.Duration) *batchv1.Job {
	return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Name: "hs-preflight", CreationTimestamp: metav1.NewTime(preflightBegan.Add(-age)),
		Annotations: map[string]string{resources.AnnotationPreflightDigest: digest, resources.AnnotationPreflightAttempt: fmt.Sprint(attempt)},
	}}
}

// attemptPod is the pod of an attempt, whose Headscale is in a state.
func attemptPod(state corev1.ContainerState, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "hs-preflight-x"}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerHeadscale, Image: "headscale/headscale:v9", State: state}}
	for _, apply := range change {
		apply(pod)
	}
	return pod
}

// attemptEnded is a container that has failed with these last words.
func attemptEnded(message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: message}}
}

// attemptWaits is a container that waits for this reason.
func attemptWaits(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "because"}}
}

// attemptFailed has a Job have failed.
func attemptFailed(job *batchv1.Job) {
	job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "DeadlineExceeded", Message: "Job was active too long"}}
}

// attemptCase is an attempt, and what follows from it.
type attemptCase struct {
	pod     *corev1.Pod
	job     func(*batchv1.Job)
	age     time.Duration
	events  string
	outcome v1beta1.PreflightOutcome
	reason  string
	message string
}

// judgeAttempts checks what follows from attempts.
func judgeAttempts(t *testing.T, cases map[string]attemptCase) {
	t.Helper()
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			job := attemptJob("a", 1, test.age)
			if test.job != nil {
				test.job(job)
			}
			got := judgeAttempt(job, test.pod, test.events, preflightBegan)
			g.Expect(got.outcome).To(Equal(test.outcome), got.message)
			g.Expect(got.reason).To(Equal(test.reason))
			g.Expect(got.message).To(And(ContainSubstring(test.message), Not(ContainSubstring("topsecret"))))
		})
	}
}

func TestJudgeAttempt(t *testing.T) {
	pod, ended, waits, failed := attemptPod, attemptEnded, attemptWaits, attemptFailed
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	oidc := `Error: initializing: creating new headscale: creating OIDC provider from issuer config: `
	running, passed, refused, unknown := v1beta1.PreflightRunning, v1beta1.PreflightPassed, v1beta1.PreflightRefused, v1beta1.PreflightUnknown
	judgeAttempts(t, map[string]attemptCase{
		"no pod yet":                               {outcome: running},
		"no pod because of a quota":                {events: "exceeded quota: pods", outcome: unknown, message: "refuses to create its pod: exceeded quota"},
		"no pod because of a quota, until the end": {job: failed, events: "exceeded quota: pods", outcome: unknown, message: "refuses to create its pod: exceeded quota"},
		"a program that is not there":              {pod: pod(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 128, Reason: "StartError", Message: "exec: no such file"}}), outcome: refused, reason: v1beta1.ReasonCannotStart, message: "cannot be started: StartError: exec: no such file"},
		"no pod for too long":                      {age: preflightEnds + time.Second, outcome: unknown, message: "has not ended"},
		"no pod any more":                          {job: failed, outcome: unknown, message: "DeadlineExceeded: Job was active too long"},
		"starting":                                 {pod: pod(waits("ContainerCreating")), outcome: running},
		"runs and does not answer yet":             {pod: pod(runs), outcome: running},
		"answers":                                  {pod: pod(runs, func(p *corev1.Pod) { p.Status.ContainerStatuses[0].Ready = true }), outcome: passed},
		"does not answer until the end":            {pod: pod(runs), job: failed, outcome: unknown, message: "DeadlineExceeded"},
		"killed at the end":                        {pod: pod(ended(""), func(p *corev1.Pod) { now := metav1.Now(); p.DeletionTimestamp = &now }), outcome: unknown, message: "is being deleted"},
		"drained": {pod: pod(ended(""), func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: "True"}}
		}), outcome: unknown},
		"evicted": {pod: pod(ended(""), func(p *corev1.Pod) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "no disk"
		}), outcome: unknown, message: "Evicted: no disk"},
		"no room":                         {pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "False", Message: "0/1 nodes"}}}}, outcome: running, message: "no node accepts pod p: 0/1 nodes"},
		"no room until the end":           {pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "False", Message: "0/1 nodes"}}}}, job: failed, outcome: unknown, message: "0/1 nodes"},
		"an image that does not exist":    {pod: pod(waits("ErrImagePull")), outcome: refused, reason: v1beta1.ReasonImagePullFailed, message: "failed to pull image headscale/headscale:v9: ErrImagePull: because"},
		"an image with an invalid name":   {pod: pod(waits("InvalidImageName")), outcome: refused, reason: v1beta1.ReasonImagePullFailed},
		"a container that cannot be made": {pod: pod(waits("CreateContainerConfigError")), outcome: refused, reason: v1beta1.ReasonCannotStart, message: "CreateContainerConfigError: because"},
		"a word of Headscale":             {pod: pod(ended("2026-11-26T19:06:15Z INF Opening database\nError: initializing: loading configuration: bad\n")), outcome: refused, reason: v1beta1.ReasonInvalidConfig, message: "Error: initializing: loading configuration: bad"},
		"too little memory":               {pod: pod(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}), outcome: refused, reason: v1beta1.ReasonInvalidConfig, message: "more memory than its limit"},
		"an end without a word":           {pod: pod(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}), outcome: refused, reason: v1beta1.ReasonInvalidConfig, message: "exited with code 0"},
		"an issuer that does not answer":  {pod: pod(ended(oidc + `Get "http://i/.well-known/openid-configuration": dial tcp 127.0.0.1:9: connect: connection refused`)), outcome: unknown, message: "connection refused"},
		"an issuer that takes too long":   {pod: pod(ended(oidc + `Get "http://i/": context deadline exceeded`)), outcome: unknown},
		"an issuer that has trouble":      {pod: pod(ended(oidc + `503 Service Unavailable: try again`)), outcome: unknown},
		"an issuer of another name":       {pod: pod(ended(oidc + `oidc: issuer did not match the issuer returned by provider`)), outcome: refused, reason: v1beta1.ReasonInvalidConfig},
		"an issuer that is not there":     {pod: pod(ended(oidc + `404 Not Found: nothing`)), outcome: refused, reason: v1beta1.ReasonInvalidConfig},
		"an issuer that has no address":   {pod: pod(ended(oidc + `Get "http://i/": dial tcp: lookup i on 10.0.0.10:53: no such host`)), outcome: refused, reason: v1beta1.ReasonInvalidConfig},
		"DNS that does not answer":        {pod: pod(ended(oidc + `Get "http://i/": dial tcp: lookup i on 10.0.0.10:53: read udp: i/o timeout`)), outcome: unknown},
		"a DERP map that is away, v0.26":  {pod: pod(ended("2026-11-26T19:12:30Z ERR Could not load DERP map from path error=\"Get \\\"http://d/\\\": dial tcp 127.0.0.1:9: connect: connection refused\"\n2026-11-26T19:12:30Z FTL serve.go:29 > had to shut down. error=\"initial DERPMap is empty\"")), outcome: unknown, message: "DERPMap is empty"},
		"a DERP map that is bad, v0.26":   {pod: pod(ended("2026-11-26T19:12:30Z ERR Could not load DERP map from path error=\"open /d: no such file or directory\"\n2026-11-26T19:12:30Z FTL serve.go:29 > had to shut down. error=\"initial DERPMap is empty\"")), outcome: refused, reason: v1beta1.ReasonInvalidConfig},
		"trouble that Headscale survived": {pod: pod(ended("2026-11-26T19:12:30Z WRN failed to set up OIDC provider error=\"connection refused\"\nError: bad key")), outcome: refused, reason: v1beta1.ReasonInvalidConfig, message: "Error: bad key"},
		"a password in the words":         {pod: pod(ended("Error: postgres://u:topsecret@db/x?password=topsecret is bad")), outcome: refused, reason: v1beta1.ReasonInvalidConfig},
	})
}

func TestJudgeAttemptOfLitestream(t *testing.T) {
	ended, waits, failed := attemptEnded, attemptWaits, attemptFailed
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	// litestream is a pod whose Headscale waits for Litestream.
	litestream := func(state corev1.ContainerState, change ...func(*corev1.Pod)) *corev1.Pod {
		pod := attemptPod(waits(reasonInitializing), change...)
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerBackup, Image: "litestream/litestream:9", State: state}}
		return pod
	}
	litestreamError := func(words string) corev1.ContainerState {
		return ended(fmt.Sprintf("path  replica\ntime=2026-11-27T22:22:30.779Z level=ERROR msg=\"failed to run\" error=%q\n", words))
	}
	running, passed, refused, unknown := v1beta1.PreflightRunning, v1beta1.PreflightPassed, v1beta1.PreflightRefused, v1beta1.PreflightUnknown
	judgeAttempts(t, map[string]attemptCase{
		"a config that Litestream refuses": {pod: litestream(litestreamError("yaml: unmarshal errors:\n  line 5: cannot unmarshal !!str `abc` into time.Duration")), outcome: refused, reason: v1beta1.ReasonInvalidConfig,
			message: "Litestream refuses spec.backup: yaml: unmarshal errors: line 5: cannot unmarshal !!str `abc` into time.Duration"},
		"a config that Litestream refuses, and the Job that failed": {pod: litestream(litestreamError("bucket required for s3 replica")), job: failed, outcome: refused, reason: v1beta1.ReasonInvalidConfig, message: "Litestream refuses spec.backup: bucket required for s3 replica"},
		"a password in Litestream's words":                          {pod: litestream(litestreamError("cannot parse \"sftp://u:topsecret@h/x\"\npassword: topsecret")), outcome: refused, reason: v1beta1.ReasonInvalidConfig},
		"a file that Litestream does not find":                      {pod: litestream(litestreamError(`cannot read sse-customer-key-path "/k": open /k: no such file or directory`)), outcome: refused, reason: v1beta1.ReasonInvalidConfig, message: `sse-customer-key-path "/k": open /k`},
		"a Litestream without a word":                               {pod: litestream(ended("")), outcome: refused, reason: v1beta1.ReasonInvalidConfig, message: "Litestream exited with code 1"},
		"a Litestream with too little memory": {pod: litestream(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}), outcome: refused, reason: v1beta1.ReasonInvalidConfig,
			message: "raise spec.pod.backup_resources.limits"},
		"an image of Litestream's that does not exist": {pod: litestream(waits("ImagePullBackOff")), outcome: refused, reason: v1beta1.ReasonImagePullFailed, message: "failed to pull Litestream's image litestream/litestream:9: ImagePullBackOff: because"},
		"an image that has no Litestream":              {pod: litestream(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 128, Reason: "StartError", Message: "exec: no such file"}}), outcome: refused, reason: v1beta1.ReasonCannotStart, message: "Litestream's container cannot be started: StartError: exec: no such file"},
		"credentials that are not there":               {pod: litestream(waits("CreateContainerConfigError")), outcome: refused, reason: v1beta1.ReasonCannotStart, message: "Litestream's container cannot be started: CreateContainerConfigError: because"},
		"Litestream is being started":                  {pod: litestream(waits("ContainerCreating")), outcome: running},
		"Litestream reads":                             {pod: litestream(runs), outcome: running},
		"Litestream does not end":                      {pod: litestream(runs), job: failed, outcome: unknown, message: "DeadlineExceeded"},
		"Litestream has read, and Headscale is made":   {pod: litestream(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}), outcome: running},
		"Litestream has read, and Headscale answers": {pod: litestream(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}, func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].Ready = true
		}), outcome: passed},
		"Litestream is killed by a drain": {pod: litestream(ended(""), func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: "True"}}
		}), outcome: unknown},
	})
}

func TestDecidePreflight(t *testing.T) {
	at := func(after time.Duration) *metav1.Time {
		when := metav1.NewTime(preflightBegan.Add(after))
		return &when
	}
	record := func(outcome v1beta1.PreflightOutcome, attempts int32, retry *metav1.Time) *v1beta1.PreflightStatus {
		return &v1beta1.PreflightStatus{Generation: 2, Digest: "a", Outcome: outcome, Attempts: attempts, RetryAt: retry, StartedAt: at(-time.Minute)}
	}
	running, passed, refused := v1beta1.PreflightRunning, v1beta1.PreflightPassed, v1beta1.PreflightRefused
	unknown, skipped := v1beta1.PreflightUnknown, v1beta1.PreflightSkipped
	always, possible := v1beta1.PreflightAlways, v1beta1.PreflightWhenPossible
	for name, test := range map[string]struct {
		mode     v1beta1.PreflightMode
		recorded *v1beta1.PreflightStatus
		job      *batchv1.Job
		result   attemptResult
		now      time.Duration

		podMissing          bool
		outcome             v1beta1.PreflightOutcome
		hold, start, remove bool
		overdue             bool
		attempts            int32
		retry               time.Duration // after now; 0: none
		until               time.Duration // after now; 0: none
	}{
		"the first attempt": {outcome: running, hold: true, start: true, until: preflightEnds + time.Second},
		"an attempt runs": {recorded: record(running, 0, nil), job: attemptJob("a", 1, 0), result: attemptResult{outcome: running},
			outcome: running, hold: true, until: preflightEnds + time.Second},
		"an attempt runs that the status does not report": {job: attemptJob("a", 1, 0), result: attemptResult{outcome: running},
			outcome: running, hold: true, until: preflightEnds + time.Second},
		"an attempt has no pod yet": {job: attemptJob("a", 1, 0), podMissing: true, result: attemptResult{outcome: running},
			outcome: running, hold: true, until: pollEvents},
		"another candidate runs": {recorded: &v1beta1.PreflightStatus{Digest: "b", Outcome: running, Attempts: 3}, job: attemptJob("b", 4, 0), result: attemptResult{outcome: passed},
			outcome: running, hold: true, remove: true},
		"another candidate was refused":  {recorded: &v1beta1.PreflightStatus{Digest: "b", Outcome: refused}, outcome: running, hold: true, start: true, until: preflightEnds + time.Second},
		"the same was applied before":    {recorded: &v1beta1.PreflightStatus{Outcome: passed}, outcome: running, hold: true, start: true, until: preflightEnds + time.Second},
		"it passed, and is not applied":  {recorded: record(passed, 0, nil), outcome: passed},
		"a record without its beginning": {recorded: &v1beta1.PreflightStatus{Digest: "a", Outcome: unknown}, outcome: unknown, hold: true, start: true, until: preflightEnds + time.Second},
		"it passes":                      {recorded: record(running, 0, nil), job: attemptJob("a", 1, 0), result: attemptResult{outcome: passed}, outcome: passed},
		"it is refused": {recorded: record(running, 0, nil), job: attemptJob("a", 1, 0), result: attemptResult{outcome: refused},
			outcome: refused, hold: true, attempts: 1, retry: longestPreflightRetry, until: jobRetention},
		"it was refused": {recorded: record(refused, 1, at(time.Minute)), job: attemptJob("a", 1, 0), result: attemptResult{outcome: refused},
			outcome: refused, hold: true, remove: true, attempts: 1, retry: time.Minute, until: 0},
		"it was refused long ago":      {recorded: record(refused, 1, at(0)), now: 30 * 24 * time.Hour, outcome: refused, hold: true, start: true, attempts: 1, retry: -30 * 24 * time.Hour, until: preflightEnds + time.Second},
		"it is inconclusive":           {recorded: record(running, 0, nil), job: attemptJob("a", 1, 0), result: attemptResult{outcome: unknown}, outcome: unknown, hold: true, attempts: 1, retry: 10 * time.Second, until: jobRetention},
		"it is inconclusive again":     {recorded: record(unknown, 2, at(-1)), job: attemptJob("a", 3, 0), result: attemptResult{outcome: unknown}, outcome: unknown, hold: true, attempts: 3, retry: 40 * time.Second, until: jobRetention},
		"the Job has told what it can": {recorded: record(unknown, 1, at(10*time.Second)), job: attemptJob("a", 1, 0), outcome: unknown, hold: true, remove: true, attempts: 1, retry: 10 * time.Second},
		"before the next attempt":      {recorded: record(unknown, 1, at(10*time.Second)), outcome: unknown, hold: true, attempts: 1, retry: 10 * time.Second, until: 10 * time.Second},
		"the next attempt":             {recorded: record(unknown, 1, at(0)), outcome: unknown, hold: true, start: true, attempts: 1, until: preflightEnds + time.Second},
		"the last attempt": {recorded: record(unknown, 5, at(0)), job: attemptJob("a", 6, 0), result: attemptResult{outcome: unknown}, now: 8 * time.Minute,
			outcome: unknown, hold: true, attempts: 6, retry: time.Minute, until: jobRetention},
		"for too long, with nobody there to try it": {recorded: record(unknown, 5, at(time.Minute)), now: 9 * time.Minute,
			outcome: unknown, hold: true, start: true, attempts: 5, retry: -8 * time.Minute, until: preflightEnds + time.Second},
		"for too long": {recorded: record(unknown, 5, at(0)), job: attemptJob("a", 6, 0), result: attemptResult{outcome: unknown}, now: 9 * time.Minute,
			outcome: skipped, attempts: 6},
		"for too long, Always": {mode: always, recorded: record(unknown, 5, at(time.Hour)), now: 9 * time.Minute,
			outcome: unknown, hold: true, overdue: true, attempts: 5, retry: 51 * time.Minute, until: 51 * time.Minute},
		"soon for too long, Always": {mode: always, recorded: record(unknown, 5, at(time.Hour)), now: 8 * time.Minute,
			outcome: unknown, hold: true, attempts: 5, retry: 52 * time.Minute, until: time.Minute},
		"an attempt runs for too long": {recorded: record(running, 0, nil), job: attemptJob("a", 1, 0), result: attemptResult{outcome: running}, now: 9 * time.Minute,
			outcome: running, hold: true, until: preflightEnds + time.Second - 9*time.Minute},
		"it passes late":               {recorded: record(unknown, 5, at(0)), job: attemptJob("a", 6, 0), result: attemptResult{outcome: passed}, now: time.Hour, outcome: passed},
		"skipped, and not applied yet": {recorded: record(skipped, 5, nil), outcome: skipped, attempts: 5},
		"a refusal is tried again, and meanwhile stays one": {recorded: record(refused, 1, at(-1)), job: attemptJob("a", 2, 0), result: attemptResult{outcome: running},
			outcome: refused, hold: true, attempts: 1, until: preflightEnds + time.Second, retry: -1},
		"a refusal is not taken back by an inconclusive attempt": {recorded: record(refused, 1, at(-1)), job: attemptJob("a", 2, 0), result: attemptResult{outcome: unknown},
			now: time.Hour, outcome: refused, hold: true, attempts: 2, retry: 20 * time.Second, until: jobRetention},
		"a refusal is never skipped": {recorded: record(refused, 9, at(time.Hour)), now: 30 * time.Minute, outcome: refused, hold: true, attempts: 9, retry: 30 * time.Minute, until: 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			mode := possible
			if test.mode != "" {
				mode = test.mode
			}
			now := preflightBegan.Add(test.now)
			d := decidePreflight(&preflightFacts{mode: mode, generation: 3, digest: "a", recorded: test.recorded, job: test.job, result: test.result, podMissing: test.podMissing, now: now})
			g.Expect(d.record.Outcome).To(Equal(test.outcome))
			g.Expect(d.record.Generation).To(BeEquivalentTo(3))
			g.Expect(d.record.Digest).To(Equal("a"))
			g.Expect([]bool{d.hold, d.start, d.remove, d.overdue}).To(Equal([]bool{test.hold, test.start, test.remove, test.overdue}), "hold, start, remove, overdue")
			g.Expect(d.record.Attempts).To(Equal(test.attempts))
			retry := time.Duration(0)
			if d.record.RetryAt != nil {
				retry = d.record.RetryAt.Sub(now)
			}
			g.Expect(retry).To(Equal(test.retry), "the next attempt")
			until := time.Duration(0)
			if !d.until.IsZero() {
				until = d.until.Sub(now)
			}
			if test.hold {
				g.Expect(until).To(Equal(test.until), "when it is looked at again")
			}
			if test.recorded != nil {
				g.Expect(*test.recorded).To(Equal(*test.recorded.DeepCopy()))
			}
		})
	}
}

func TestPreflightThatCannotBegin(t *testing.T) {
	for name, test := range map[string]struct {
		outcome, after v1beta1.PreflightOutcome
		began          time.Duration
		hold           bool
		message        string
	}{
		"at first":                  {v1beta1.PreflightUnknown, v1beta1.PreflightUnknown, time.Minute, true, "exceeded quota"},
		"for too long":              {v1beta1.PreflightUnknown, v1beta1.PreflightSkipped, time.Hour, false, "exceeded quota"},
		"is no answer to a refusal": {v1beta1.PreflightRefused, v1beta1.PreflightRefused, time.Hour, true, "bad"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			began := metav1.NewTime(preflightBegan.Add(-test.began))
			facts := &preflightFacts{digest: "a", now: preflightBegan, recorded: &v1beta1.PreflightStatus{
				Digest: "a", Outcome: test.outcome, Reason: v1beta1.ReasonInvalidConfig, Message: "bad", Attempts: 1, RetryAt: &began, StartedAt: &began,
			}}
			d := decidePreflight(facts)
			g.Expect(d.start).To(BeTrue())
			d.fail(facts, 2, "exceeded quota")
			g.Expect(d.hold).To(Equal(test.hold))
			g.Expect(d.record).To(And(HaveField("Outcome", test.after), HaveField("Message", test.message), HaveField("Attempts", BeEquivalentTo(2))))
			if test.hold {
				g.Expect(d.until).To(Equal(preflightBegan.Add(20 * time.Second)))
				g.Expect(d.record.RetryAt.Time).To(Equal(d.until))
			}
		})
	}
}

// A finalizer of somebody else keeps a Job that is being deleted, and no other can be created.
func TestPreflightBehindAJobThatStays(t *testing.T) {
	g := NewWithT(t)
	deleted := metav1.NewTime(preflightBegan)
	job := attemptJob("b", 1, 0)
	job.DeletionTimestamp, job.Finalizers = &deleted, []string{"example.com/audit"}
	facts := &preflightFacts{digest: "a", job: job, now: preflightBegan.Add(time.Second)}
	d := decidePreflight(facts)
	g.Expect(d.record.Outcome).To(Equal(v1beta1.PreflightRunning))
	g.Expect(d.until).To(Equal(preflightBegan.Add(stuckAfter)))

	facts.recorded, facts.now = &d.record, d.until
	for attempt := 1; d.hold; attempt++ {
		g.Expect(attempt).To(BeNumerically("<", 10))
		d = decidePreflight(facts)
		g.Expect(d.start).To(BeFalse())
		g.Expect(d.record.Attempts).To(BeEquivalentTo(attempt))
		g.Expect(d.record.Message).To(MatchRegexp(`^Job .+ is being deleted since .+ finalizers \(example.com/audit\): remove them with kubectl edit job .+$`))
		if !d.hold {
			break
		}
		facts.recorded, facts.now = &d.record, d.record.RetryAt.Add(-time.Second)
		early := decidePreflight(facts)
		g.Expect(early.record).To(Equal(d.record))
		g.Expect(early.until).To(Equal(d.record.RetryAt.Time))
		facts.now = early.until
	}
	g.Expect(d.record.Outcome).To(Equal(v1beta1.PreflightSkipped))
	g.Expect(facts.now).To(BeTemporally("<=", deadlineOf(facts.recorded).Add(time.Second)))
}

// The pod of a Job that is deleted in the foreground keeps it.
func TestPreflightBehindAPodThatStays(t *testing.T) {
	g := NewWithT(t)
	deleted := metav1.NewTime(preflightBegan)
	job := attemptJob("b", 1, 0)
	job.DeletionTimestamp, job.Finalizers = &deleted, []string{metav1.FinalizerDeleteDependents}
	d := decidePreflight(&preflightFacts{digest: "a", job: job, now: preflightBegan.Add(stuckAfter)})
	g.Expect(d.record.Message).To(ContainSubstring("because of its pod, which remains, too (finalizers: foregroundDeletion): see kubectl describe pods --selector=batch.kubernetes.io/job-name=hs-preflight"))
}

// Where it is not known which policy Headscale would find, nothing is tried, and what was refused stays so.
func TestPreflightOfAnUnknownPolicy(t *testing.T) {
	began := metav1.NewTime(preflightBegan)
	record := func(digest string, generation int64, outcome v1beta1.PreflightOutcome) *v1beta1.PreflightStatus {
		return &v1beta1.PreflightStatus{Digest: digest, Generation: generation, Outcome: outcome, Message: "old words", Reason: v1beta1.ReasonInvalidConfig, StartedAt: &began}
	}
	for name, test := range map[string]struct {
		recorded *v1beta1.PreflightStatus
		job      *batchv1.Job
		mode     v1beta1.PreflightMode
		after    time.Duration
		outcome  v1beta1.PreflightOutcome
		message  string
		hold     bool
		remove   bool
	}{
		"at first":                          {outcome: v1beta1.PreflightUnknown, message: "not in force", hold: true},
		"while a Job tries another":         {job: attemptJob("b", 1, 0), outcome: v1beta1.PreflightUnknown, message: "not in force", hold: true, remove: true},
		"while a Job tries none":            {job: attemptJob("a", 1, 0), outcome: v1beta1.PreflightUnknown, message: "not in force", hold: true, remove: true},
		"for too long":                      {recorded: record("a", 2, v1beta1.PreflightUnknown), after: progressDeadline, outcome: v1beta1.PreflightSkipped, message: "not in force"},
		"for too long, Always":              {recorded: record("a", 2, v1beta1.PreflightUnknown), mode: v1beta1.PreflightAlways, after: progressDeadline, outcome: v1beta1.PreflightUnknown, message: "not in force", hold: true},
		"after a refusal of another policy": {recorded: record("b", 2, v1beta1.PreflightRefused), after: time.Hour, outcome: v1beta1.PreflightRefused, message: "old words", hold: true},
		"after a refusal of another spec":   {recorded: record("b", 1, v1beta1.PreflightRefused), outcome: v1beta1.PreflightUnknown, message: "not in force", hold: true},
		"after a refusal that was followed": {recorded: record("", 2, v1beta1.PreflightRefused), outcome: v1beta1.PreflightUnknown, message: "not in force", hold: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			facts := &preflightFacts{
				mode: test.mode, generation: 2, digest: "a", recorded: test.recorded, job: test.job,
				result: attemptResult{outcome: v1beta1.PreflightPassed}, policyUnknown: "not in force", now: preflightBegan.Add(test.after),
			}
			d := decidePreflight(facts)
			g.Expect(d.record).To(And(HaveField("Outcome", test.outcome), HaveField("Message", test.message)))
			g.Expect([]bool{d.hold, d.start, d.remove}).To(Equal([]bool{test.hold, false, test.remove}), "hold, start, remove")
			if test.hold {
				g.Expect(d.until).To(BeTemporally(">", facts.now))
			}
			facts.recorded, facts.job = &d.record, nil
			g.Expect(decidePreflight(facts).record).To(Equal(d.record), "nothing is written until the next attempt is due")
		})
	}
}

func TestPreflightIsDescribed(t *testing.T) {
	g := NewWithT(t)
	refused := &v1beta1.PreflightStatus{Digest: "a", Outcome: v1beta1.PreflightRefused}
	passed := &v1beta1.PreflightStatus{Outcome: v1beta1.PreflightPassed}
	over := &preflight{known: true}
	g.Expect(over.describe(refused, true)).To(BeNil(), "another change was applied")
	g.Expect(over.describe(refused, false)).To(Equal(refused), "the operator refuses the next one")
	g.Expect(over.describe(passed, false)).To(Equal(passed))
	g.Expect((&preflight{}).describe(refused, false)).To(Equal(refused))
	g.Expect((&preflight{known: true, record: passed}).describe(refused, false)).To(Equal(passed))
}

func TestPreflightInconclusive(t *testing.T) {
	g := NewWithT(t)
	jobs := schema.GroupResource{Group: "batch", Resource: "jobs"}
	for _, err := range []error{
		apierrors.NewBadRequest("a webhook says no"), apierrors.NewInternalError(errors.New("a webhook failed")), apierrors.NewForbidden(jobs, "a", errors.New("quota")),
		fmt.Errorf("applying: %w", errors.Join(apierrors.NewInvalid(schema.GroupKind{}, "a", nil))), &apply.ForeignError{Owner: &v1beta1.Headscale{}},
	} {
		g.Expect(inconclusive(err)).To(BeTrue(), err.Error())
	}
	for _, err := range []error{nil, apierrors.NewConflict(jobs, "a", errors.New("changed")), &apply.OwnerGoneError{Owner: &v1beta1.Headscale{}}, errors.New("connection refused")} {
		g.Expect(inconclusive(err)).To(BeFalse(), fmt.Sprint(err))
	}
}

func TestPreflightRetry(t *testing.T) {
	g := NewWithT(t)
	var waits []time.Duration
	for attempts := range int32(8) {
		waits = append(waits, preflightRetry(attempts+1)/time.Second)
	}
	g.Expect(waits).To(Equal([]time.Duration{10, 20, 40, 80, 160, 300, 300, 300}))
	g.Expect(preflightRetry(1 << 30)).To(Equal(longestPreflightRetry))
}

func TestNeedsPreflight(t *testing.T) {
	template := func(image string) appsv1.StatefulSet {
		live := appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Replicas: ptr.To(int32(1))}}
		live.Spec.Template.Spec.Containers = []corev1.Container{{Name: resources.ContainerHeadscale, Image: image}}
		return live
	}
	notReady := func(since time.Duration) func(*v1beta1.Headscale) {
		return func(h *v1beta1.Headscale) {
			h.Status.Version = "v0.29.3"
			h.Status.Conditions = []metav1.Condition{{Type: v1beta1.ConditionAvailable, Status: metav1.ConditionFalse, LastTransitionTime: metav1.NewTime(preflightBegan.Add(-since))}}
		}
	}
	of := func(outcome v1beta1.PreflightOutcome, digest string) func(*v1beta1.Headscale) {
		return func(h *v1beta1.Headscale) {
			notReady(time.Hour)(h)
			h.Status.Preflight = &v1beta1.PreflightStatus{Digest: digest, Outcome: outcome}
		}
	}
	for name, test := range map[string]struct {
		change  func(*v1beta1.Headscale)
		image   string
		missing bool
		needed  bool
	}{
		"of a refused change that a new StatefulSet would have": {change: of(v1beta1.PreflightRefused, "a"), missing: true, needed: true},
		"of a new StatefulSet":                       {change: notReady(0), missing: true},
		"at a first start":                           {change: func(*v1beta1.Headscale) {}},
		"while the pod is replaced":                  {change: notReady(startGrace - time.Second), needed: true},
		"of the same pod":                            {change: notReady(0), image: "a"},
		"while Headscale is not ready":               {change: notReady(startGrace)},
		"that has begun":                             {change: of(v1beta1.PreflightRunning, "a"), needed: true},
		"that was skipped":                           {change: of(v1beta1.PreflightSkipped, "a"), needed: true},
		"after another that was refused":             {change: of(v1beta1.PreflightRefused, "b"), needed: true},
		"after another that is unknown":              {change: of(v1beta1.PreflightUnknown, "b"), needed: true},
		"after another that has begun":               {change: of(v1beta1.PreflightRunning, "b"), needed: true},
		"after another that was applied":             {change: of(v1beta1.PreflightPassed, "")},
		"after another that was applied without one": {change: of(v1beta1.PreflightSkipped, "")},
		"where the user wants none": {change: func(h *v1beta1.Headscale) {
			of(v1beta1.PreflightRefused, "b")(h)
			h.Spec.Preflight = v1beta1.PreflightNever
		}},
		"while the user wants no pod": {change: func(h *v1beta1.Headscale) { of(v1beta1.PreflightRefused, "a")(h); h.Spec.Replicas = ptr.To(int32(0)) }},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			headscale := &v1beta1.Headscale{}
			test.change(headscale)
			live, planned := template("a"), template(cmp.Or(test.image, "b"))
			o, s := observed{statefulSet: &live, pod: &corev1.Pod{}}, scope{headscale: headscale, now: preflightBegan}
			if test.missing {
				g.Expect(needsPreflight(s, observed{pod: o.pod}, "a", nil, nil)).To(Equal(test.needed))
				g.Expect(needsPreflight(s, observed{}, "a", nil, nil)).To(BeFalse(), "without a pod")
				return
			}
			g.Expect(needsPreflight(s, o, "a", &live, &planned)).To(Equal(test.needed))
		})
	}
}
