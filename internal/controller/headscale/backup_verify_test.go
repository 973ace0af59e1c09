package headscale

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// verifyJob is a Job that restores an incarnation since a time.
func verifyJob(uid types.UID, incarnation string, created time.Time) *batchv1.Job {
	job := &batchv1.Job{}
	job.Name, job.UID, job.CreationTimestamp = "headscale-verify", uid, metav1.NewTime(created)
	job.Annotations = map[string]string{resources.AnnotationVerifyIncarnation: incarnation}
	return job
}

func TestDecideVerification(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *metav1.Time { t := metav1.NewTime(now.Add(d)); return &t }
	passed, failed, unknown := v1beta1.VerificationPassed, v1beta1.VerificationFailed, v1beta1.VerificationUnknown
	record := func(outcome v1beta1.VerificationOutcome, ended time.Duration, attempts int32) *v1beta1.BackupVerification {
		return &v1beta1.BackupVerification{Incarnation: "a", Job: "old", Outcome: outcome, EndedAt: at(ended), VerifiedAt: at(-time.Hour), Attempts: attempts}
	}
	deleted := verifyJob("1", "a", now)
	deleted.DeletionTimestamp = at(-time.Second)
	for name, test := range map[string]struct {
		facts  verifyFacts
		record *v1beta1.BackupVerification
		start  bool
		remove bool
		until  time.Duration // from now; zero: when something changes
	}{
		"never":                                  {facts: verifyFacts{interval: -1, recorded: record(passed, -time.Hour, 0)}},
		"never, with a Job":                      {facts: verifyFacts{interval: -1, job: verifyJob("1", "a", now)}, remove: true},
		"the first one, ten minutes later":       {facts: verifyFacts{since: now}, until: 10 * time.Minute},
		"the first one, sooner":                  {facts: verifyFacts{since: now, interval: time.Minute}, until: time.Minute},
		"the first one":                          {facts: verifyFacts{since: now.Add(-10 * time.Minute)}, start: true},
		"the first one, without a pod":           {facts: verifyFacts{since: now.Add(-time.Hour), paused: true}},
		"the first one of another incarnation":   {facts: verifyFacts{since: now, incarnation: "b", recorded: record(passed, -48*time.Hour, 0)}, until: 10 * time.Minute},
		"one that passed":                        {facts: verifyFacts{recorded: record(passed, -time.Hour, 0)}, record: record(passed, -time.Hour, 0), until: 23 * time.Hour},
		"one that passed long ago":               {facts: verifyFacts{recorded: record(passed, -24*time.Hour, 0)}, record: record(passed, -24*time.Hour, 0), start: true},
		"one that failed":                        {facts: verifyFacts{recorded: record(failed, 0, 1)}, record: record(failed, 0, 1), until: 5 * time.Minute},
		"one that failed again and again":        {facts: verifyFacts{recorded: record(failed, 0, 99)}, record: record(failed, 0, 99), until: 6 * time.Hour},
		"one that failed, with a short interval": {facts: verifyFacts{interval: time.Minute, recorded: record(failed, 0, 9)}, record: record(failed, 0, 9), until: time.Minute},
		"changes that do not reach the storage":  {facts: verifyFacts{trouble: now.Add(-time.Minute), recorded: record(passed, -time.Hour, 0)}, record: record(passed, -time.Hour, 0), start: true},
		"and that was tried since":               {facts: verifyFacts{trouble: now.Add(-time.Hour), recorded: record(failed, 0, 1)}, record: record(failed, 0, 1), until: 5 * time.Minute},
		"and that was verified just before":      {facts: verifyFacts{trouble: now.Add(-time.Minute), recorded: record(passed, -2*time.Minute, 0)}, record: record(passed, -2*time.Minute, 0), until: 58 * time.Minute},
		"a storage that is back":                 {facts: verifyFacts{recovered: now, recorded: record(failed, -time.Hour, 6)}, record: record(failed, -time.Hour, 6), start: true},
		"a storage that comes and goes":          {facts: verifyFacts{recovered: now, recorded: record(failed, -time.Minute, 6)}, record: record(failed, -time.Minute, 6), until: 59 * time.Minute},
		"a storage that is back soon":            {facts: verifyFacts{recovered: now, recorded: record(failed, -time.Minute, 1)}, record: record(failed, -time.Minute, 1), until: 4 * time.Minute},
		"a storage that is back, and was tried":  {facts: verifyFacts{recovered: now.Add(-time.Hour), recorded: record(failed, 0, 1)}, record: record(failed, 0, 1), until: 5 * time.Minute},
		"a Job that runs":                        {facts: verifyFacts{job: verifyJob("1", "a", now)}, until: verifyEnds + time.Second},
		"a Job without a pod":                    {facts: verifyFacts{job: verifyJob("1", "a", now), podMissing: true}, until: verifyPoll},
		"a Job of another incarnation":           {facts: verifyFacts{job: verifyJob("1", "b", now)}, remove: true, until: jobRetention},
		"a Job that is being deleted":            {facts: verifyFacts{job: deleted, result: verifyResult{outcome: passed}}, remove: true, until: jobRetention},
		"a Job that was reported":                {facts: verifyFacts{job: verifyJob("old", "a", now), recorded: record(passed, 0, 0), result: verifyResult{outcome: passed}}, record: record(passed, 0, 0), remove: true, until: jobRetention},
		"a Job that passed": {
			facts:  verifyFacts{job: verifyJob("1", "a", now.Add(-time.Minute)), result: verifyResult{outcome: passed}, recorded: record(failed, -time.Hour, 4)},
			record: &v1beta1.BackupVerification{Incarnation: "a", Job: "1", Outcome: passed, EndedAt: at(0), VerifiedAt: at(-time.Minute)}, until: jobRetention,
		},
		"a Job that failed": {
			facts:  verifyFacts{job: verifyJob("1", "a", now), result: verifyResult{outcome: failed, message: "bad\x1b[31m"}, recorded: record(passed, -time.Hour, 0)},
			record: &v1beta1.BackupVerification{Incarnation: "a", Job: "1", Outcome: failed, Message: "bad", EndedAt: at(0), VerifiedAt: at(-time.Hour), Attempts: 1}, until: jobRetention,
		},
		"a Job that failed first": {
			facts:  verifyFacts{job: verifyJob("1", "a", now), result: verifyResult{outcome: failed, message: "bad"}},
			record: &v1beta1.BackupVerification{Incarnation: "a", Job: "1", Outcome: failed, Message: "bad", EndedAt: at(0), Attempts: 1}, until: jobRetention,
		},
		"a Job that could not run": {
			facts:  verifyFacts{job: verifyJob("1", "a", now), result: verifyResult{outcome: unknown, message: "no node"}, recorded: record(passed, -time.Hour, 0)},
			record: &v1beta1.BackupVerification{Incarnation: "a", Job: "1", Outcome: unknown, Message: "no node", EndedAt: at(0), VerifiedAt: at(-time.Hour), Attempts: 1}, until: jobRetention,
		},
		"a Job that could not run, after one that failed": {
			facts:  verifyFacts{job: verifyJob("1", "a", now), result: verifyResult{outcome: unknown, message: "no node"}, recorded: &v1beta1.BackupVerification{Incarnation: "a", Outcome: failed, Message: "bad", EndedAt: at(-time.Hour), Attempts: 1}},
			record: &v1beta1.BackupVerification{Incarnation: "a", Job: "1", Outcome: failed, Message: "bad", EndedAt: at(0), Attempts: 2}, until: jobRetention,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			facts := test.facts
			facts.now = now
			switch facts.interval {
			case 0:
				facts.interval = 24 * time.Hour
			case -1:
				facts.interval = 0
			}
			if facts.incarnation == "" {
				facts.incarnation = "a"
			}
			d := decideVerification(&facts)
			g.Expect(d.record).To(Equal(test.record))
			g.Expect(d.start).To(Equal(test.start))
			g.Expect(d.remove).To(Equal(test.remove))
			if test.until == 0 {
				g.Expect(d.until).To(BeZero())
			} else {
				g.Expect(d.until).To(BeTemporally("==", now.Add(test.until)))
			}
		})
	}
}

func TestJudgeVerification(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	podWith := func(state corev1.ContainerState) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: resources.ContainerRestore, State: state}}}}
	}
	ended := func(code int32, reason, message string) *corev1.Pod {
		return podWith(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}})
	}
	evicted := ended(137, "Error", "")
	evicted.Status.Phase, evicted.Status.Reason = corev1.PodFailed, "Evicted"
	refusedJob := verifyJob("1", "a", now)
	refusedJob.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "DeadlineExceeded"}}
	for name, test := range map[string]struct {
		job          *batchv1.Job
		pod          *corev1.Pod
		failedCreate string
		outcome      v1beta1.VerificationOutcome
		message      string
	}{
		"no pod yet":                         {outcome: ""},
		"a quota":                            {failedCreate: "exceeded quota: pods=0", outcome: v1beta1.VerificationUnknown, message: "Kubernetes refuses to create its pod: exceeded quota"},
		"a start":                            {pod: podWith(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}), outcome: ""},
		"a success":                          {pod: ended(0, "Completed", ""), outcome: v1beta1.VerificationPassed},
		"a damaged file":                     {pod: ended(1, "Error", "level=INFO msg=x\ndecode database: cannot verify ltx: checksum mismatch"), outcome: v1beta1.VerificationFailed, message: "checksum mismatch"},
		"a damaged database":                 {pod: ended(1, "Error", "post-restore integrity check: row 7 missing"), outcome: v1beta1.VerificationFailed, message: "row 7 missing"},
		"a storage that is away, or refuses": {pod: ended(1, "Error", "SignatureDoesNotMatch, secret_access_key=abcdefgh1234567890"), outcome: v1beta1.VerificationFailed, message: "SignatureDoesNotMatch"},
		"the words of a real one": {
			pod:     ended(1, "Error", "time=2026-11-27T06:35:35.180Z level=INFO msg=x\ntime=2026-11-27T06:35:35.180Z level=ERROR msg=\"failed to run\" error=\"decode \\\"x\\\": decode page 4: read lz4 trailer: expected lz4 end frame\"\n"),
			outcome: v1beta1.VerificationFailed, message: `decode "x": decode page 4: read lz4 trailer: expected lz4 end frame`,
		},
		"silence":           {pod: ended(3, "Error", ""), outcome: v1beta1.VerificationFailed, message: "exited with code 3"},
		"too little memory": {pod: ended(137, "OOMKilled", ""), outcome: v1beta1.VerificationUnknown, message: "backup_resources"},
		"no program":        {pod: ended(128, "StartError", "exec: no such file"), outcome: v1beta1.VerificationUnknown, message: "cannot be started"},
		"no image":          {pod: podWith(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}), outcome: v1beta1.VerificationUnknown, message: "ImagePullBackOff"},
		"an eviction":       {pod: evicted, outcome: v1beta1.VerificationUnknown, message: "Evicted"},
		"too long a time":   {job: refusedJob, pod: podWith(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}), outcome: v1beta1.VerificationUnknown, message: "DeadlineExceeded"},
		"a Job nobody runs": {job: verifyJob("1", "a", now.Add(-verifyEnds-time.Second)), outcome: v1beta1.VerificationUnknown, message: "has not ended within"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			job := test.job
			if job == nil {
				job = verifyJob("1", "a", now)
			}
			got := judgeVerification(job, test.pod, test.failedCreate, now)
			g.Expect(got.outcome).To(Equal(test.outcome))
			g.Expect(got.message).To(ContainSubstring(test.message))
			g.Expect(got.message).NotTo(ContainSubstring("time="), "what changes with every attempt")
			g.Expect(strings.Contains(got.message, "abcdefgh1234567890")).To(BeFalse(), "a credential")
		})
	}
}

func TestJudgeCount(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	ended := func(code int32, message string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error", Message: message}}
	}
	for name, test := range map[string]struct {
		restore, count corev1.ContainerState
		age            time.Duration
		phase          corev1.PodPhase
		outcome        v1beta1.VerificationOutcome
		message        string
		rows           *v1beta1.BackupRows
	}{
		"rows":                 {count: ended(0, `{"rows":{"users":2,"api_keys":0},"hasAPIKey":true}`), outcome: v1beta1.VerificationPassed, rows: &v1beta1.BackupRows{Users: ptr.To[int64](2), APIKeys: ptr.To[int64](0)}},
		"not counted yet":      {count: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reasonInitializing}}},
		"no restore":           {restore: ended(1, "no matching backup files available"), count: ended(2, "no such file"), outcome: v1beta1.VerificationFailed, message: "no matching backup files"},
		"no database of ours":  {count: ended(2, "apikey-manager: counting the rows of the database: it is damaged"), outcome: v1beta1.VerificationPassed, message: "its rows were not counted: "},
		"another database":     {count: ended(0, `{"rows":{"users":9},"hasAPIKey":false}`), outcome: v1beta1.VerificationFailed, message: "does not have the API key of Headscale's"},
		"something else":       {count: ended(0, "hello"), outcome: v1beta1.VerificationPassed, message: "printed something else"},
		"no image":             {count: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}, outcome: v1beta1.VerificationPassed, message: "ImagePullBackOff"},
		"an eviction after it": {phase: corev1.PodFailed, outcome: v1beta1.VerificationPassed, message: "ended pod"},
		"nobody counts":        {age: verifyEnds + time.Second, outcome: v1beta1.VerificationPassed, message: "has not ended within"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			if test.restore.Terminated == nil {
				test.restore = ended(0, "")
			}
			pod := &corev1.Pod{Status: corev1.PodStatus{
				Phase: test.phase, InitContainerStatuses: []corev1.ContainerStatus{{Name: resources.ContainerRestore, State: test.restore}},
				ContainerStatuses: []corev1.ContainerStatus{{Name: resources.ContainerCount, State: test.count}},
			}}
			if test.phase != "" {
				pod.Status.Reason = "Evicted"
			}
			got := judgeVerification(verifyJob("1", "a", now.Add(-test.age)), pod, "", now)
			g.Expect(got.outcome).To(Equal(test.outcome))
			g.Expect(got.message).To(ContainSubstring(test.message))
			g.Expect(got.rows).To(Equal(test.rows))
		})
	}
}

var _ = Describe("The verification of a backup", func() {
	It("restores it into a Job, and says what became of that", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n  backup: {replica: {type: s3, bucket: b}, verify_interval: 11m}\n")).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		rollOut(ctx, o.namespace, "headscale", 1)
		passed := corev1.ContainerStatus{Name: resources.ContainerRestore, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
		setPod(ctx, pod, nil, running(server, true), running(resources.ContainerBackup, true), passed)
		headscale := get[v1beta1.Headscale](ctx, o.namespace, "headscale")
		Eventually(headscale).WithContext(ctx).Should(HaveField("Status.Backup", HaveValue(HaveField("StartedAt", Not(BeNil())))))
		incarnation := headscale(NewGomega(Fail)).Status.Backup.Incarnation
		none := missing[batchv1.Job](ctx, o.namespace, "headscale-verify")
		Expect(none()).To(BeTrue(), "there is something to restore first")
		run := func(status corev1.PodStatus) {
			GinkgoHelper()
			var job *batchv1.Job
			Eventually(func(g Gomega) {
				job = get[batchv1.Job](ctx, o.namespace, "headscale-verify")(g)
				g.Expect(job.DeletionTimestamp).To(BeNil())
			}).WithContext(ctx).Should(Succeed())
			Expect(job.Annotations).To(HaveKeyWithValue(resources.AnnotationVerifyIncarnation, incarnation))
			runJob(ctx, job, &status)
			Eventually(headscale).WithContext(ctx).Should(HaveField("Status.BackupVerification", HaveValue(HaveField("Job", string(job.UID)))))
			Eventually(none).WithContext(ctx).Should(BeTrue(), "it is gone when it is reported")
		}
		ended := func(code int32, words string) corev1.PodStatus {
			state := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Message: words}}
			return corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: resources.ContainerRestore, State: state}}}
		}

		o.advance(firstVerification + time.Second)
		o.touch(ctx, "headscale")
		run(ended(0, ""))
		verified := o.series("backup_verified_timestamp_seconds", "headscale")
		Expect(headscale(NewGomega(Fail)).Status.BackupVerification).To(HaveValue(And(HaveField("Outcome", v1beta1.VerificationPassed), HaveField("Incarnation", incarnation))))
		Eventually(seriesOf(o.metrics)).WithContext(ctx).Should(HaveKeyWithValue(verified, BeNumerically(">", 1e9)))
		o.touch(ctx, "headscale")
		Expect(none()).To(BeTrue(), "the next one is not due")

		By("a backup that is damaged")
		o.advance(11 * time.Minute)
		o.touch(ctx, "headscale")
		run(ended(1, "decode database: checksum mismatch"))
		Expect(headscale(NewGomega(Fail)).Status.BackupVerification).To(HaveValue(And(
			HaveField("Outcome", v1beta1.VerificationFailed), HaveField("Message", "decode database: checksum mismatch"), HaveField("VerifiedAt", Not(BeNil())))))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)(NewGomega(Fail))).To(be("True", v1beta1.ReasonReady, ""))

		By("one that could not run, after that")
		o.advance(firstVerifyRetry + time.Second)
		o.touch(ctx, "headscale")
		run(corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{waiting(resources.ContainerRestore, "ErrImagePull", "no such image")}})
		Expect(headscale(NewGomega(Fail)).Status.BackupVerification).To(HaveValue(HaveField("Outcome", v1beta1.VerificationFailed)), "that says nothing of the backup")

		By("a Job of somebody else")
		foreign := emptyJob(o.namespace, "headscale-verify")
		foreign.Labels = map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy}
		Eventually(func() error { return admin.Create(ctx, foreign) }).WithContext(ctx).Should(Succeed())
		Eventually(get[batchv1.Job](ctx, o.namespace, "headscale-verify")).WithContext(ctx).Should(HaveField("UID", foreign.UID))
		attempts := headscale(NewGomega(Fail)).Status.BackupVerification.Attempts
		o.advance(longestVerifyRetry + time.Second)
		o.touch(ctx, "headscale")
		Eventually(headscale).WithContext(ctx).Should(HaveField("Status.BackupVerification.Attempts", BeNumerically(">", attempts)), "it does not wait in silence")

		By("being turned off")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {backup: {verify_interval: 0s}}}`)).To(Succeed())
		Eventually(headscale).WithContext(ctx).Should(HaveField("Status.BackupVerification", BeNil()))
	})
})
