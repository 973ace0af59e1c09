package headscale

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// podNow is the time of the tests of a pod.
var podNow = time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)

// ago is a time before podNow.
func ago(d time.Duration) metav1.Time { return metav1.NewTime(podNow.Add(-d)) }

// started is the state of a container that has started and is not ready.
func started(at metav1.Time) corev1.ContainerStatus {
	status := running(server, false)
	status.Started = new(true)
	status.State.Running.StartedAt = at
	return status
}

func TestStateOfHeadscale(t *testing.T) {
	unschedulable := func(since time.Duration) corev1.PodCondition {
		return corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
			Message: "0/3 nodes are available: 3 Insufficient memory.", LastTransitionTime: ago(since),
		}
	}
	pending := func(conditions ...corev1.PodCondition) corev1.PodStatus {
		return corev1.PodStatus{Conditions: conditions}
	}
	with := func(containers ...corev1.ContainerStatus) corev1.PodStatus {
		return corev1.PodStatus{ContainerStatuses: containers}
	}
	conditions := func(status corev1.PodStatus, ready, containers corev1.ConditionStatus, reason string) corev1.PodStatus {
		status.Conditions = []corev1.PodCondition{
			{Type: corev1.PodReady, Status: ready, Reason: reason}, {Type: corev1.ContainersReady, Status: containers, LastTransitionTime: ago(time.Minute)},
		}
		return status
	}
	killed := crashed(server, "")
	killed.LastTerminationState.Terminated.Reason = "OOMKilled"
	again := running(server, false)
	again.LastTerminationState = crashed(server, "Error: no").LastTerminationState
	recovered := running(server, true)
	recovered.LastTerminationState = again.LastTerminationState
	const lost, bound, unbound = corev1.ClaimLost, corev1.ClaimBound, corev1.ClaimPending
	for name, test := range map[string]struct {
		status    corev1.PodStatus
		claim     corev1.PersistentVolumeClaimPhase
		age       time.Duration
		ok        bool
		reason    string
		message   string
		changesIn time.Duration
		stalled   bool
	}{
		"nothing known yet":                   {pending(), "", 0, false, v1beta1.ReasonProgressing, "Pod hs-0 is being started", 0, false},
		"no node yet":                         {pending(unschedulable(29 * time.Second)), bound, 0, false, v1beta1.ReasonProgressing, "No node accepts pod hs-0: 0/3 nodes are available: 3 Insufficient memory.", time.Second, false},
		"no node":                             {pending(unschedulable(30 * time.Second)), bound, 0, false, v1beta1.ReasonUnschedulable, "No node accepts pod hs-0: 0/3 nodes are available: 3 Insufficient memory.", 0, false},
		"no volume yet":                       {pending(unschedulable(time.Hour)), unbound, 10 * time.Second, false, v1beta1.ReasonProgressing, "claim data-hs-0 is not bound", 20 * time.Second, false},
		"no volume":                           {pending(unschedulable(0)), unbound, time.Minute, false, v1beta1.ReasonVolumePending, "claim data-hs-0 is not bound", 0, false},
		"a lost volume":                       {pending(), lost, 0, false, v1beta1.ReasonVolumePending, "The volume of claim data-hs-0 is lost", 0, true},
		"an image that is away":               {with(waiting(server, "ImagePullBackOff", "Back-off pulling image")), "", 0, false, v1beta1.ReasonImagePullFailed, "ImagePullBackOff: Back-off pulling image", 0, false},
		"an image that is none":               {with(waiting(server, "InvalidImageName", "couldn't parse image name")), "", 0, false, v1beta1.ReasonImagePullFailed, "InvalidImageName: couldn't parse", 0, true},
		"a config that is away":               {with(waiting(server, "CreateContainerConfigError", `secret "db" not found`)), "", 0, false, v1beta1.ReasonCannotStart, `CreateContainerConfigError: secret "db" not found`, 0, false},
		"being made":                          {with(waiting(server, "ContainerCreating", "")), "", 0, false, v1beta1.ReasonProgressing, "Pod hs-0 is not ready", 0, false},
		"looking for a database":              {with(waiting(server, "PodInitializing", ""), running(resources.ContainerRestore, false)), "", 0, false, v1beta1.ReasonProgressing, "Litestream in pod hs-0 is looking for a database to restore", 0, false},
		"an empty volume":                     {with(waiting(server, "PodInitializing", ""), crashed(resources.ContainerRestore, "open /etc/litestream/litestream.yml/the-volume-has-no-database/generations: not a directory")), "", 0, false, v1beta1.ReasonProgressing, "has no database, and Litestream is about to restore one", 0, false},
		"no restore":                          {with(waiting(server, "PodInitializing", ""), crashed(resources.ContainerRestore, "error=\"NoSuchBucket\"")), "", 0, false, v1beta1.ReasonRestoreFailed, "Pod hs-0 waits for its database, which Litestream neither found nor restored: error=\"NoSuchBucket\". It tries again", 0, false},
		"an image of Litestream that is away": {with(waiting(server, "PodInitializing", ""), waiting(resources.ContainerRestore, "ImagePullBackOff", "no such image")), "", 0, false, v1beta1.ReasonImagePullFailed, "Litestream cannot start: failed to pull image : ImagePullBackOff: no such image", 0, false},
		"an image of Litestream that is none": {with(waiting(server, "PodInitializing", ""), waiting(resources.ContainerRestore, "InvalidImageName", "")), "", 0, false, v1beta1.ReasonImagePullFailed, "Litestream cannot start", 0, true},
		"no credentials of a backup":          {with(waiting(server, "PodInitializing", ""), waiting(resources.ContainerRestore, "CreateContainerConfigError", `secret "backup" not found`)), "", 0, false, v1beta1.ReasonCannotStart, `The container of Litestream in pod hs-0 cannot be started: CreateContainerConfigError: secret "backup" not found`, 0, false},
		"a Litestream that does not stay up":  {with(waiting(server, "PodInitializing", ""), crashed(resources.ContainerBackup, "invalid replica")), "", 0, false, v1beta1.ReasonCrashing, "Litestream in pod hs-0 is crash-looping: invalid replica", 0, false},
		"a log without its database":          {with(waiting(server, "PodInitializing", ""), crashed(resources.ContainerVolume, "db.sqlite-wal has 9 bytes")), "", 0, false, v1beta1.ReasonRestoreFailed, "The check of the data volume in pod hs-0 is crash-looping: db.sqlite-wal has 9 bytes", 0, false},
		"no private keys":                     {with(waiting(server, "PodInitializing", ""), crashed(resources.ContainerIdentity, "no such entry")), "", 0, false, v1beta1.ReasonRestoreFailed, "The restore of the private keys in pod hs-0 is crash-looping: no such entry", 0, false},
		"crashing":                            {with(crashed(server, "Error: no")), "", 0, false, v1beta1.ReasonCrashing, "Headscale in pod hs-0 is crash-looping: Error: no", 0, false},
		"crashing without a word":             {with(crashed(server, "")), "", 0, false, v1beta1.ReasonCrashing, "it exited with code 1 and printed nothing; kubectl logs hs-0 -c headscale --previous", 0, false},
		"an unquoted password":                {with(crashed(server, "Error: cannot parse `host=db password=xxxxx TOPSECRET`: failed to parse as keyword/value")), "", 0, false, v1beta1.ReasonCrashing, "crash-looping: Error: cannot parse `host=db password=***`: failed to parse as keyword/value. If the database password contains a space", 0, false},
		"out of memory":                       {with(killed), "", 0, false, v1beta1.ReasonCrashing, "more memory than its limit", 0, false},
		"started once more":                   {with(again), "", 0, false, v1beta1.ReasonCrashing, "Error: no", 0, false},
		"up again":                            {with(recovered), "", 0, true, v1beta1.ReasonAvailable, "Headscale in pod hs-0 is ready", 0, false},
		"just started":                        {conditions(with(started(ago(20*time.Second))), "False", "False", ""), "", 0, false, v1beta1.ReasonProgressing, "has not passed its health check", startLimit - 20*time.Second, false},
		"never answered":                      {conditions(with(started(ago(startLimit))), "False", "False", ""), "", 0, false, v1beta1.ReasonNotAnswering, "has not passed its health check", 0, false},
		"not answering any more":              {conditions(with(started(ago(2*time.Minute))), "False", "False", ""), "", 0, false, v1beta1.ReasonNotAnswering, "has not passed its health check", 0, false},
		"up, without a sidecar":               {with(running(server, true), crashed(sidecar, "no")), "", 0, true, v1beta1.ReasonAvailable, "ready", 0, false},
		"on a lost node":                      {conditions(with(running(server, true)), "False", "True", ""), "", 0, false, v1beta1.ReasonNodeLost, "Node n1 is not reporting to the API server", 0, false},
		"not let in by others":                {conditions(with(running(server, true)), "False", "True", "ReadinessGatesNotReady"), "", 0, true, v1beta1.ReasonAvailable, "ready", 0, false},
		"evicted":                             {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: memory."}, "", 0, false, v1beta1.ReasonPodFailed, "Pod hs-0 was evicted or rejected by its node: Evicted: The node was low on resource: memory.", 0, false},
		"not admitted":                        {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "SysctlForbidden"}, "", 0, false, v1beta1.ReasonPodFailed, "SysctlForbidden", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "hs-0", CreationTimestamp: ago(test.age)}, Spec: corev1.PodSpec{NodeName: "n1"}, Status: test.status}
			kept, err := stripPod(pod)
			g.Expect(err).NotTo(HaveOccurred())
			stripped, isPod := kept.(*corev1.Pod)
			g.Expect(isPod).To(BeTrue())
			var claim *corev1.PersistentVolumeClaim
			if test.claim != "" {
				claim = &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data-hs-0", CreationTimestamp: ago(time.Hour)}, Status: corev1.PersistentVolumeClaimStatus{Phase: test.claim}}
			}
			got := stateOfHeadscale(stripped, claim, podNow)
			g.Expect(fmt.Sprint(got.True, " ", got.Reason, " ", got.Message)).To(
				And(HavePrefix(fmt.Sprint(test.ok, " ", test.reason, " ")), ContainSubstring(test.message)))
			expectOutlook(g, got, test.stalled, test.changesIn)
		})
	}
}

// expectOutlook checks what becomes of a condition: nothing changes by itself in no time.
func expectOutlook(g Gomega, got status.Condition, stalled bool, changesIn time.Duration) {
	g.Expect(got.Stalled).To(Equal(stalled))
	if changesIn == 0 {
		g.Expect(got.ChangesAt).To(BeZero())
		return
	}
	g.Expect(got.ChangesAt).To(BeTemporally("==", podNow.Add(changesIn)))
}

func TestStateOfPodThatIsStopped(t *testing.T) {
	g := NewWithT(t)
	now := metav1.NewTime(podNow)
	leaving := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "hs-0", DeletionTimestamp: &now}, Spec: corev1.PodSpec{NodeName: "n1"}}
	g.Expect(stateOfHeadscale(leaving, nil, podNow)).To(Equal(status.False(v1beta1.ReasonProgressing, "Pod hs-0 is terminating")))
	leaving.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue}}
	g.Expect(stateOfHeadscale(leaving, nil, podNow).Message).To(And(ContainSubstring("Node n1 is not reporting"), ContainSubstring("kubectl delete pod hs-0 --force")))
}

var _ = Describe("The status, when the pod fails,", func() {
	It("says what a pod lacks, until Headscale is ready", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		claim := makeClaim(ctx, o.namespace, "headscale", "slow", corev1.ClaimPending)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		available := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "kubectl describe pvc data-headscale-0"))
		o.advance(startGrace)
		o.touch(ctx, "headscale")
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonVolumePending, "kubectl describe pvc data-headscale-0"))

		claim.Status.Phase = corev1.ClaimBound
		setClaimStatus(ctx, claim)
		setPod(ctx, pod, []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "False", Reason: corev1.PodReasonUnschedulable, Message: "0/1 nodes are available"}})
		Eventually(available).WithContext(ctx).Should(be("False", v1beta1.ReasonUnschedulable, "0/1 nodes are available"))

		setPod(ctx, pod, nil, waiting(server, "ErrImagePull", "not found"))
		Eventually(available).WithContext(ctx).Should(be("False", v1beta1.ReasonImagePullFailed, "Headscale cannot start: failed to pull image headscale/headscale:v0.29.3: ErrImagePull: not found"))

		runPod(ctx, o.namespace, "headscale", 1)
		setPod(ctx, pod, nil, running(server, true))
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
	})

	It("quotes Headscale's own last words", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		available := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)
		for printed, words := range map[string]string{
			"2026-11-23T23:55:19Z FTL \nFATAL: The \"oidc.expiry\" configuration key has been removed. Please use \"node.expiry\" instead.\n\n": `FATAL: The "oidc.expiry" configuration key has been removed. Please use "node.expiry" instead.`,
			"2026-11-23T23:55:19Z FTL invalid database type \"mysql\", must be sqlite, sqlite3 or postgres\n":                                   `invalid database type "mysql", must be sqlite, sqlite3 or postgres`,
			"Error: initializing database: cannot parse `host=db password=xxxxx TOPSECRET`: failed to parse\n":                                  "Error: initializing database: cannot parse `host=db password=***`: failed to parse",
			"Error: \x1b[31mno\x1b[0m \u202egood\n": "Error: no good",
		} {
			setPod(ctx, pod, nil, crashed(server, printed))
			Eventually(available).WithContext(ctx).Should(be("False", v1beta1.ReasonCrashing, "is crash-looping: "+words))
			Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)(NewGomega(Fail)).Message).To(HaveSuffix(words))
		}
		Expect(recorded(ctx, o.namespace)(NewGomega(Fail))).NotTo(ContainElement(ContainSubstring("TOPSECRET")))
	})

	It("blames the API Key Manager for the key alone", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		pod := makePod(ctx, o.namespace, "headscale")
		key := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)
		setPod(ctx, pod, nil, running(server, true), crashed(sidecar, "apikey-manager: --expiration: must be positive"))
		Eventually(key).WithContext(ctx).Should(be("False", v1beta1.ReasonManagerFailing,
			"No API key is in Secret headscale-api-key yet. The API Key Manager in pod headscale-0 is crash-looping: apikey-manager: --expiration: must be positive"))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, ""))

		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonManagerFailing, "is valid until"))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonManagerFailing, "is crash-looping"))

		setPod(ctx, pod, nil, running(server, true), running(sidecar, true))
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyValid, ""))
	})

	It("notices that the pod is gone, and that it is not made again", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))

		Expect(admin.Delete(ctx, makePod(ctx, o.namespace, "headscale"), client.GracePeriodSeconds(0))).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "There is no pod headscale-0; kubectl describe statefulset headscale"))
		o.advance(startGrace)
		o.touch(ctx, "headscale")
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonPodMissing, "kubectl describe statefulset headscale"))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
	})

	It("notices that the node is lost", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		setPod(ctx, makePod(ctx, o.namespace, "headscale"), []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionFalse}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
		}, running(server, true))
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonNodeLost, "is not reporting"))
	})

	It("goes by the pod, not by what is said of its successor", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, strings.ReplaceAll(shortest, "v0.29.3", "v0.28.0")+"  api_key: {auto_manage: false}\n")).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		old := makePod(ctx, o.namespace, "headscale")

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.3}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.29.3"))
		rollOut(ctx, o.namespace, "headscale", 1)
		o.touch(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(ready(NewGomega(Fail))).To(be("False", v1beta1.ReasonProgressing, "is being replaced"))
		version := func(g Gomega) string { return get[v1beta1.Headscale](ctx, o.namespace, "headscale")(g).Status.Version }
		Expect(version(NewGomega(Fail))).To(Equal("v0.28.0"))

		Expect(admin.Delete(ctx, old, client.GracePeriodSeconds(0))).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(version(NewGomega(Fail))).To(Equal("v0.29.3"))
	})
})
