package headscale

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/env"
)

// fakeLitestream serves the metrics of a Litestream in a pod with an address of its own, since a
// real one cannot be told what to count.
type fakeLitestream struct {
	address string
	server  *http.Server
	changes atomic.Int64
	uploads atomic.Int64
	looks   atomic.Int64
}

// startLitestream starts one that has written everything.
func startLitestream() *fakeLitestream {
	GinkgoHelper()
	f := &fakeLitestream{}
	f.changes.Store(3)
	f.uploads.Store(3)
	f.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "process_start_time_seconds 1\nlitestream_txid{db=\"x\"} %d\nlitestream_sync_count{db=\"x\"} %d\nlitestream_replica_operation_total{operation=\"PUT\"} %d\n",
			f.changes.Load(), f.looks.Add(1), f.uploads.Load())
	})}
	var listener net.Listener
	// Another suite may have the port at one address.
	Eventually(func() (err error) {
		f.address = cmp.Or(env.OwnIP(), "127.0.0.1")
		listener, err = net.Listen("tcp", net.JoinHostPort(f.address, strconv.Itoa(resources.BackupPort)))
		return err
	}).Should(Succeed())
	go func() { _ = f.server.Serve(listener) }()
	DeferCleanup(f.server.Close)
	return f
}

var _ = Describe("The condition BackedUp", func() {
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	passed := corev1.ContainerStatus{Name: resources.ContainerRestore, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
	podWith := func(states ...corev1.ContainerStatus) *corev1.Pod {
		pod := &corev1.Pod{Status: corev1.PodStatus{InitContainerStatuses: states}}
		pod.Name = "headscale-0"
		return pod
	}
	runs := podWith(passed, running(resources.ContainerBackup, true))
	s3 := &v1beta1.BackupSpec{Replica: v1beta1.BackupReplica{Type: "s3"}}
	stopped := int32(0)

	for _, test := range []struct {
		what            string
		spec            *v1beta1.BackupSpec
		replicas        *int32
		o               observed
		status          metav1.ConditionStatus
		reason, message string
	}{
		{"without a backup", nil, nil, observed{pod: podWith()}, "", "", ""},
		{"while the pod of a backup that is turned off goes on", nil, nil, observed{pod: runs, replication: backupTrack{state: backupReplicates}}, "True", v1beta1.ReasonReplicating, "Litestream in pod headscale-0 replicates the database"},
		{"without a pod", s3, nil, observed{}, "Unknown", v1beta1.ReasonProgressing, "not running yet"},
		{"of a Headscale that is stopped", s3, &stopped, observed{}, "Unknown", v1beta1.ReasonScaledToZero, "scaled to zero"},
		{"while the volume is restored", s3, nil, observed{pod: podWith(running(resources.ContainerRestore, true))}, "Unknown", v1beta1.ReasonProgressing, "not running yet"},
		{"of an image that cannot be pulled", s3, nil, observed{pod: podWith(passed, corev1.ContainerStatus{Name: resources.ContainerBackup, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}})}, "False", v1beta1.ReasonBackupNotRunning, "The database is not backed up: Litestream cannot start: failed to pull image"},
		{"of a Litestream that crashes", s3, nil, observed{pod: podWith(passed, corev1.ContainerStatus{Name: resources.ContainerBackup,
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reasonCrashLoop}}, LastTerminationState: failedWith("password=secret")})},
			"False", v1beta1.ReasonBackupNotRunning, "Litestream in pod headscale-0 is crash-looping: password="},
		{"before Litestream was asked", s3, nil, observed{pod: runs}, "Unknown", v1beta1.ReasonProgressing, "being asked"},
		{"of a Litestream that does not answer", s3, nil, observed{pod: runs, replication: backupTrack{state: backupUnreachable}}, "Unknown", v1beta1.ReasonMetricsUnreachable, "NetworkPolicy"},
		{"before the first file", s3, nil, observed{pod: runs, replication: backupTrack{state: backupBegins}}, "False", v1beta1.ReasonProgressing, "has not replicated anything"},
		{"of changes that do not reach the storage", s3, nil, observed{pod: runs, replication: backupTrack{state: backupBehind, complete: at}}, "False", v1beta1.ReasonNotReplicating, "The changes since 2026-11-27T12:00:00Z are not in the backup"},
		{"of a start without a storage", s3, nil, observed{pod: runs, replication: backupTrack{state: backupBehind}}, "False", v1beta1.ReasonNotReplicating, "The changes of the database are not in the backup"},
		{"of a database that cannot be read", s3, nil, observed{pod: runs, replication: backupTrack{state: backupBlind, complete: at}}, "False", v1beta1.ReasonNotReplicating, "fails to read the database"},
		{"of a directory", &v1beta1.BackupSpec{Replica: v1beta1.BackupReplica{Type: "file"}}, nil, observed{pod: runs, replication: backupTrack{state: backupBegins}}, "Unknown", v1beta1.ReasonNotMeasured, "does not count"},
	} {
		It("is right "+test.what, func() {
			headscale := &v1beta1.Headscale{}
			headscale.Spec.Backup, headscale.Spec.Replicas = test.spec, test.replicas
			condition := backedUp(scope{headscale: headscale, now: at}, test.o)
			if test.status == "" {
				Expect(condition).To(BeNil())
				return
			}
			Expect(condition).To(HaveValue(be(test.status, test.reason, test.message)))
			Expect(condition.Message).NotTo(ContainSubstring("secret"))
		})
	}

	It("says that a restore could not be tried", func() {
		last := &v1beta1.BackupVerification{Outcome: v1beta1.VerificationUnknown, Message: "Job headscale-verify exists already"}
		condition := withVerification(&metav1.Condition{Status: metav1.ConditionTrue, Reason: v1beta1.ReasonReplicating, Message: "It replicates"}, last, time.Time{})
		Expect(condition).To(HaveValue(be("True", v1beta1.ReasonReplicating, "It replicates. It could not be verified that it can be restored: Job headscale-verify exists already")))
	})

	It("says what a verification since then tells of a storage that is not written to", func() {
		verified := func(after time.Duration) string {
			began := metav1.NewTime(at.Add(after))
			last := &v1beta1.BackupVerification{Outcome: v1beta1.VerificationPassed, VerifiedAt: &began}
			return withVerification(&metav1.Condition{Reason: v1beta1.ReasonNotReplicating, Message: "It fails"}, last, at).Message
		}
		Expect(verified(time.Minute)).To(Equal("It fails. At 2026-11-27T12:01:00Z the storage could be read, so it is full, or these credentials may not write"))
		Expect(verified(-time.Minute)).To(Equal("It fails"))
		failed := &v1beta1.BackupVerification{Outcome: v1beta1.VerificationFailed, Message: "InvalidAccessKeyId"}
		Expect(withVerification(&metav1.Condition{Reason: v1beta1.ReasonNotReplicating, Message: "It fails"}, failed, at).Message).To(
			Equal("It fails. The last verification of the backup failed, too: InvalidAccessKeyId"))
	})

	It("stays what it was until this operator has asked", func() {
		headscale := &v1beta1.Headscale{}
		headscale.Spec.Backup = s3
		conditions := []metav1.Condition{{Type: v1beta1.ConditionBackedUp, Status: metav1.ConditionFalse, Reason: v1beta1.ReasonNotReplicating, Message: "since noon"}}
		setBackedUp(&conditions, nil, scope{headscale: headscale, now: at}, observed{pod: runs})
		Expect(conditions).To(ConsistOf(be("False", v1beta1.ReasonNotReplicating, "since noon")))
		setBackedUp(&conditions, nil, scope{headscale: headscale, now: at}, observed{pod: runs, replication: backupTrack{state: backupReplicates}})
		Expect(conditions).To(ConsistOf(be("True", v1beta1.ReasonReplicating, "replicates the database")))
		setBackedUp(&conditions, nil, scope{headscale: &v1beta1.Headscale{}, now: at}, observed{pod: podWith()})
		Expect(conditions).To(BeEmpty())
	})

	It("follows Litestream, writes nothing while nothing changes, and never makes Headscale unready", func(ctx context.Context) {
		litestream := startLitestream()
		often := func(r *Reconciler) {
			r.backups.interval, r.backups.recheck = 50*time.Millisecond, 10*time.Millisecond
		}
		o := startOperator(ctx, often)
		key := client.ObjectKey{Namespace: o.namespace, Name: "headscale"}
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n  backup: {replica: {type: s3, bucket: b}}\n")).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		pod := podOf(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail)))
		show := func(state corev1.ContainerStatus) {
			GinkgoHelper()
			setPodStatus(ctx, pod, corev1.PodStatus{PodIP: litestream.address, PodIPs: []corev1.PodIP{{IP: litestream.address}},
				InitContainerStatuses: []corev1.ContainerStatus{passed, state}, ContainerStatuses: []corev1.ContainerStatus{running(server, true)}})
		}
		show(running(resources.ContainerBackup, true))
		backedUp, ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionBackedUp), condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(backedUp).WithContext(ctx).Should(be("True", v1beta1.ReasonReplicating, "replicates the database"))
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement("Normal Replicating: Litestream in pod headscale-0 replicates the database"))
		last := o.series("backup_last_sync_timestamp_seconds", "headscale")
		Eventually(seriesOf(o.metrics)).WithContext(ctx).Should(And(
			HaveKeyWithValue(o.series("headscale_backed_up", "headscale", `reason="Replicating"`), 1.0), HaveKeyWithValue(last, BeNumerically(">", 1e9)),
			HaveKeyWithValue(o.series("backup_pending_changes", "headscale"), 0.0)))

		By("being idle")
		written, looks := o.settle(ctx, "headscale"), litestream.looks.Load()
		Eventually(litestream.looks.Load).WithContext(ctx).Should(BeNumerically(">", looks+10))
		Expect(o.written()).To(Equal(written), "nothing is written while nothing changes")

		By("having changes that do not reach the storage")
		litestream.changes.Add(2)
		Eventually(seriesOf(o.metrics)).WithContext(ctx).Should(HaveKeyWithValue(o.series("backup_pending_changes", "headscale"), 2.0))
		Expect(backedUp(NewGomega(Fail))).To(be("True", v1beta1.ReasonReplicating, ""), "it may take some seconds")
		o.advance(behindLimit)
		Eventually(backedUp).WithContext(ctx).Should(be("False", v1beta1.ReasonNotReplicating, "cannot write to its storage"))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(HavePrefix("Warning NotReplicating: The changes since ")))
		Expect(ready(NewGomega(Fail))).To(be("True", v1beta1.ReasonReady, ""))

		By("another operator taking over meanwhile")
		o.stop()
		o = startOperatorIn(o.namespace, often)
		looks = litestream.looks.Load()
		Eventually(litestream.looks.Load).WithContext(ctx).Should(BeNumerically(">", looks+10))
		o.touch(ctx, "headscale")
		Expect(backedUp(NewGomega(Fail))).To(be("False", v1beta1.ReasonNotReplicating, "cannot write to its storage"))
		litestream.uploads.Add(2)
		Eventually(backedUp).WithContext(ctx).Should(be("True", v1beta1.ReasonReplicating, ""))

		By("not answering")
		Expect(litestream.server.Close()).To(Succeed())
		Eventually(func() bool { return o.reconciler.backups.known(key).silent.IsZero() }).WithContext(ctx).Should(BeFalse())
		o.advance(unreachableLimit)
		Eventually(backedUp).WithContext(ctx).Should(be("Unknown", v1beta1.ReasonMetricsUnreachable, "does a NetworkPolicy forbid it?"))

		By("crashing")
		show(corev1.ContainerStatus{Name: resources.ContainerBackup, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reasonCrashLoop}}, LastTerminationState: failedWith("bad")})
		Eventually(backedUp).WithContext(ctx).Should(be("False", v1beta1.ReasonBackupNotRunning, "crash-looping: bad"))
		Expect(o.reconciler.backups.known(key)).To(Equal(backupTrack{}), "it is not asked any more")
		Expect(ready(NewGomega(Fail))).To(be("True", v1beta1.ReasonReady, ""))

		By("being turned off")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {backup: null}}`)).To(Succeed())
		Expect(admin.Delete(ctx, pod)).To(Succeed())
		Eventually(func(g Gomega) *metav1.Condition {
			return meta.FindStatusCondition(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(g).Status.Conditions, v1beta1.ConditionBackedUp)
		}).WithContext(ctx).Should(BeNil())
	})
})

// kstatusOfBackups are the situations of backups, which kstatus does not go by: Headscale runs.
func kstatusOfBackups() map[string]kstatusCase {
	backed := func(kind string, litestream corev1.ContainerStatus, state backupState, verified v1beta1.VerificationOutcome) kstatusCase {
		return kstatusCase{changed(upToDate(), func(p *situation) {
			p.headscale.Spec.Backup = &v1beta1.BackupSpec{Replica: v1beta1.BackupReplica{Type: kind}}
			p.pod.Status.InitContainerStatuses = []corev1.ContainerStatus{litestream}
			p.replication.state = state
			p.headscale.Status.BackupVerification = &v1beta1.BackupVerification{Outcome: verified, EndedAt: &metav1.Time{}}
		}), nil, v1beta1.ReasonReady, current}
	}
	runs := running(resources.ContainerBackup, true)
	return map[string]kstatusCase{
		"a backup that is complete":       backed("s3", runs, backupReplicates, ""),
		"a backup that is not":            backed("s3", runs, backupBehind, ""),
		"a backup that cannot be seen":    backed("s3", runs, backupUnreachable, ""),
		"a backup that is not measured":   backed("file", runs, backupBegins, ""),
		"a backup that was restored":      backed("file", runs, backupBegins, v1beta1.VerificationPassed),
		"a backup that is damaged":        backed("s3", runs, backupReplicates, v1beta1.VerificationFailed),
		"a backup without its Litestream": backed("s3", crashed(resources.ContainerBackup, "bad"), backupUnknown, ""),
	}
}
