package headscale

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

var _ = Describe("The incarnation of a database", func() {
	const at, fresh = "2026-11-26T12:00:00Z", "20261126t223000z-1f0c9a2b"
	now := time.Date(2026, 11, 26, 22, 30, 0, 0, time.UTC)
	started := metav1.NewTime(now)
	earlier := metav1.NewTime(now.Add(-time.Hour))
	whenEmpty := &v1beta1.BackupSpec{Restore: v1beta1.RestoreWhenEmpty}
	never := &v1beta1.BackupSpec{Restore: v1beta1.RestoreNever}
	pointInTime := &v1beta1.BackupSpec{Restore: at}
	other := &v1beta1.BackupSpec{Restore: v1beta1.RestoreWhenEmpty, RestoreFrom: "other"}
	neverOther := &v1beta1.BackupSpec{Restore: v1beta1.RestoreNever, RestoreFrom: "other"}
	running := &v1beta1.BackupStatus{Incarnation: "a", StartedAt: &earlier}

	DescribeTable("follows from the spec, the last one and the pod",
		func(spec *v1beta1.BackupSpec, last *v1beta1.BackupStatus, facts backupFacts, want *v1beta1.BackupStatus) {
			facts.uid, facts.now = "1f0c9a2b-0000-4000-8000-000000000000", now
			Expect(nextBackup(spec, last, &facts)).To(Equal(want))
			if want != nil && !facts.empty && !facts.ready {
				Expect(nextBackup(spec, want, &facts)).To(Equal(want), "it is decided once")
			}
		},
		Entry("without a backup", nil, nil, backupFacts{}, nil),
		Entry("a backup that is turned off", nil, running, backupFacts{}, nil),
		Entry("a backup that is turned off while its pod goes on", nil, running, backupFacts{replicating: true, ready: true}, running),
		Entry("a backup that is turned on again while its pod goes on", whenEmpty, running, backupFacts{replicating: true, ready: true}, running),
		Entry("a status that was lost while its pod goes on", whenEmpty, nil, backupFacts{replicating: true, ready: true, told: "a", onClaim: "a", ran: true},
			&v1beta1.BackupStatus{Incarnation: "a", StartedAt: &started}),
		Entry("a first one on a volume on which Headscale ran before", whenEmpty, nil, backupFacts{ran: true},
			&v1beta1.BackupStatus{Incarnation: fresh, StartedAt: &started}),
		Entry("and that is empty, and was replicated as another", whenEmpty, &v1beta1.BackupStatus{Incarnation: "b", Previous: "a", StartedAt: &earlier}, backupFacts{ran: true, onClaim: "a", empty: true},
			&v1beta1.BackupStatus{Incarnation: fresh, Previous: "a", RestoredFrom: "a"}),
		Entry("a first one", whenEmpty, nil, backupFacts{}, &v1beta1.BackupStatus{Incarnation: fresh}),
		Entry("a first one on the volume of another", whenEmpty, nil, backupFacts{onClaim: "a"},
			&v1beta1.BackupStatus{Incarnation: fresh, Previous: "a", RestoredFrom: "a"}),
		Entry("a first one from the backup of another", other, nil, backupFacts{},
			&v1beta1.BackupStatus{Incarnation: fresh, RestoredFrom: "other"}),
		Entry("a name that is corrected", whenEmpty, &v1beta1.BackupStatus{Incarnation: "b", RestoredFrom: "wrong"}, backupFacts{empty: true},
			&v1beta1.BackupStatus{Incarnation: "b"}),
		Entry("a first start", whenEmpty, &v1beta1.BackupStatus{Incarnation: "a"}, backupFacts{ready: true},
			&v1beta1.BackupStatus{Incarnation: "a", StartedAt: &started}),
		Entry("a pod that runs", whenEmpty, running, backupFacts{ready: true}, running),
		Entry("an empty volume", whenEmpty, running, backupFacts{empty: true},
			&v1beta1.BackupStatus{Incarnation: fresh, Previous: "a", RestoredFrom: "a"}),
		Entry("an empty volume that could not be restored", whenEmpty, &v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a"}, backupFacts{empty: true},
			&v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a"}),
		Entry("an empty volume that may begin empty", never, running, backupFacts{empty: true},
			&v1beta1.BackupStatus{Incarnation: fresh, Previous: "a"}),
		Entry("a word that comes later", never, &v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a"}, backupFacts{empty: true},
			&v1beta1.BackupStatus{Incarnation: "b", Previous: "a"}),
		Entry("a point in time while the pod runs", pointInTime, running, backupFacts{ready: true}, running),
		Entry("a point in time of an empty volume", pointInTime, running, backupFacts{empty: true},
			&v1beta1.BackupStatus{Incarnation: fresh, Previous: "a", RestoredFrom: "a", RestoredTo: at}),
		Entry("a point in time that was restored", pointInTime, &v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a", RestoredTo: at}, backupFacts{begun: true, ready: true},
			&v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a", RestoredTo: at, StartedAt: &started, RestoreDone: at}),
		Entry("a point in time that came after the pod had begun", pointInTime, &v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a"}, backupFacts{begun: true},
			&v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a"}),
		Entry("and is not done when Headscale is ready", pointInTime, &v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a"}, backupFacts{begun: true, ready: true},
			&v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a", StartedAt: &started}),
		Entry("another backup that came after the pod had begun", other, &v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a"}, backupFacts{begun: true, ready: true},
			&v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a", StartedAt: &started}),
		Entry("another backup that was restored", other, &v1beta1.BackupStatus{Incarnation: "b", RestoredFrom: "other"}, backupFacts{begun: true, ready: true},
			&v1beta1.BackupStatus{Incarnation: "b", RestoredFrom: "other", StartedAt: &started, RestoreDone: "other"}),
		Entry("a word that comes after the pod had begun", never, &v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a"}, backupFacts{begun: true},
			&v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredFrom: "a"}),
		Entry("nothing was restored of another backup where that is never", neverOther, &v1beta1.BackupStatus{Incarnation: "b"}, backupFacts{begun: true, ready: true},
			&v1beta1.BackupStatus{Incarnation: "b", StartedAt: &started}),
		Entry("so it is in an empty volume after that", other, &v1beta1.BackupStatus{Incarnation: "b", StartedAt: &earlier}, backupFacts{empty: true},
			&v1beta1.BackupStatus{Incarnation: fresh, Previous: "b", RestoredFrom: "other"}),
		Entry("an empty volume after a point in time that was restored", pointInTime, &v1beta1.BackupStatus{Incarnation: "b", Previous: "a", RestoredTo: at, StartedAt: &earlier, RestoreDone: at}, backupFacts{empty: true},
			&v1beta1.BackupStatus{Incarnation: fresh, Previous: "b", RestoredFrom: "b", RestoreDone: at}),
		Entry("a point in time that is taken back", whenEmpty, &v1beta1.BackupStatus{Incarnation: "b", StartedAt: &earlier, RestoreDone: at}, backupFacts{ready: true},
			&v1beta1.BackupStatus{Incarnation: "b", StartedAt: &earlier}),
	)

	DescribeTable("is told by the container before Headscale",
		func(gate corev1.ContainerStatus, ready bool, printed string, behind bool) {
			gate.Name = resources.ContainerRestore
			pod := &corev1.Pod{Status: corev1.PodStatus{
				InitContainerStatuses: []corev1.ContainerStatus{gate},
				ContainerStatuses:     []corev1.ContainerStatus{{Name: resources.ContainerHeadscale, Ready: ready}},
			}}
			Expect(failedGate(pod)).To(Equal(printed))
			Expect(behindGate(pod)).To(Equal(behind))
		},
		Entry("that has not started", corev1.ContainerStatus{}, false, "", false),
		Entry("that runs", corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}, false, "", false),
		Entry("that failed", corev1.ContainerStatus{State: failedWith("no")}, false, "no", false),
		Entry("that failed without a word", corev1.ContainerStatus{State: failedWith("")}, false, "it printed nothing", false),
		Entry("that waits to try again", corev1.ContainerStatus{
			State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reasonCrashLoop}},
			LastTerminationState: failedWith("no"),
		}, false, "no", false),
		Entry("that cannot be made again", corev1.ContainerStatus{
			State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerConfigError"}},
			LastTerminationState: failedWith("no"),
		}, false, "", false),
		Entry("that tries again", corev1.ContainerStatus{
			State:                corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			LastTerminationState: failedWith("no"),
		}, false, "", false),
		Entry("that passed", corev1.ContainerStatus{
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}, LastTerminationState: failedWith("no"),
		}, false, "", false),
		Entry("that passed, and Headscale is ready", corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}, true, "", true),
	)
})

var _ = Describe("The incarnation of a database that is replicated", func() {
	const withBackup = shortest + "  backup: {replica: {type: s3, bucket: b}}\n"
	planOf := func(ctx context.Context, namespace string) func(Gomega) map[string]string {
		return func(g Gomega) map[string]string {
			return get[corev1.ConfigMap](ctx, namespace, "headscale-backup")(g).Data
		}
	}
	backupOf := func(ctx context.Context, namespace string) func(Gomega) *v1beta1.BackupStatus {
		return func(g Gomega) *v1beta1.BackupStatus {
			return get[v1beta1.Headscale](ctx, namespace, "headscale")(g).Status.Backup
		}
	}
	passed := corev1.ContainerStatus{Name: resources.ContainerRestore, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}

	It("is sealed once Headscale is ready, also while the spec is refused", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, withBackup)).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		Eventually(planOf(ctx, o.namespace)).WithContext(ctx).Should(HaveKeyWithValue("start-empty", "true"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {acl_policy_path: /x}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(HaveField("Message", ContainSubstring("acl_policy_path")))

		setPod(ctx, pod, nil, running(server, true), running(resources.ContainerBackup, true), passed)
		Eventually(planOf(ctx, o.namespace)).WithContext(ctx).Should(And(HaveKeyWithValue("config", "sealed.yml"), HaveKeyWithValue("start-empty", "false")))
		Expect(backupOf(ctx, o.namespace)(NewGomega(Fail)).StartedAt).NotTo(BeNil())
	})

	It("reaches a pod that waits for it, also while a change of the replica is held", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, withBackup)).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		rollOut(ctx, o.namespace, "headscale", 1)
		setPod(ctx, pod, nil, running(server, true), running(resources.ContainerBackup, true), passed)
		Eventually(planOf(ctx, o.namespace)).WithContext(ctx).Should(HaveKeyWithValue("config", "sealed.yml"))
		before := planOf(ctx, o.namespace)(NewGomega(Fail))
		held := func() {
			GinkgoHelper()
			Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, overrideWords))
		}
		o.preflight.Store(ends(overrideWords))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {backup: {replica: {bucket: other}}, config: {dns: {magic_dns: true, base_domain: tail.internal, override_local_dns: true}}}}`)).To(Succeed())
		held()
		o.touch(ctx, "headscale")
		Expect(planOf(ctx, o.namespace)(NewGomega(Fail))).To(Equal(before), "the pod that runs would read another replica when it is started again")

		o.advance(firstVerification + time.Second)
		o.touch(ctx, "headscale")
		held()
		Consistently(missing[batchv1.Job](ctx, o.namespace, "headscale-verify")).WithContext(ctx).Should(BeTrue(), "there is no backup yet as it is wanted")

		By("losing the volume")
		empty := corev1.ContainerStatus{Name: resources.ContainerRestore, State: failedWith("the-volume-has-no-database")}
		setPod(ctx, pod, nil, running(server, false), empty)
		Eventually(planOf(ctx, o.namespace)).WithContext(ctx).Should(And(
			HaveKeyWithValue("config", "litestream.yml"), HaveKeyWithValue("source", before["target"]), HaveKeyWithValue("target", Not(Equal(before["target"])))))
		held()
		Expect(planOf(ctx, o.namespace)(NewGomega(Fail))).To(HaveKeyWithValue("litestream.yml", before["litestream.yml"]))

		By("taking the change back")
		o.preflight.Store(nil)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {dns: null}}}`)).To(Succeed())
		Eventually(func(g Gomega) map[string]string {
			o.advance(time.Minute) // By its clock, a Job is overdue as soon as it is there: it may have to be made again.
			o.touch(ctx, "headscale")
			return planOf(ctx, o.namespace)(g)
		}).WithContext(ctx).Should(HaveKeyWithValue("litestream.yml", ContainSubstring("bucket: other")))
	})

	It("stays in the status until no pod replicates to its path", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, withBackup)).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		setPod(ctx, pod, nil, running(server, true), running(resources.ContainerBackup, true), passed)
		Eventually(backupOf(ctx, o.namespace)).WithContext(ctx).Should(HaveValue(HaveField("StartedAt", Not(BeNil()))))
		first := backupOf(ctx, o.namespace)(NewGomega(Fail))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {backup: null, config: {acl_policy_path: /x}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(HaveField("Message", ContainSubstring("acl_policy_path")))
		o.touch(ctx, "headscale")
		Expect(backupOf(ctx, o.namespace)(NewGomega(Fail))).To(Equal(first))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {backup: {replica: {type: s3, bucket: b}}, config: {acl_policy_path: null}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).ShouldNot(HaveField("Message", ContainSubstring("acl_policy_path")))
		Expect(backupOf(ctx, o.namespace)(NewGomega(Fail))).To(Equal(first))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {backup: null}}`)).To(Succeed())
		Eventually(func(g Gomega) []corev1.Container {
			return get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g).Spec.Template.Spec.InitContainers
		}).WithContext(ctx).Should(BeEmpty())
		o.touch(ctx, "headscale")
		Expect(backupOf(ctx, o.namespace)(NewGomega(Fail))).To(Equal(first), "the pod goes on replicating until it is replaced")
		Expect(planOf(ctx, o.namespace)(NewGomega(Fail))).NotTo(BeEmpty())

		Expect(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		Eventually(backupOf(ctx, o.namespace)).WithContext(ctx).Should(BeNil())
	})
})

// failedWith is the state of a container that failed.
func failedWith(printed string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Message: printed}}
}
