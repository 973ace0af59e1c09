package controller

import (
	"context"
	"fmt"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func TestStateOfHeadscale(t *testing.T) {
	unschedulable := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		Message: "0/3 nodes are available: 3 Insufficient memory.",
	}
	killed := crashed(server, "")
	killed.LastTerminationState.Terminated.Reason = "OOMKilled"
	again := running(server, false)
	again.LastTerminationState = crashed(server, "Error: no").LastTerminationState
	answering := running(server, false)
	answering.Started = new(true)
	recovered := running(server, true)
	recovered.LastTerminationState = again.LastTerminationState
	for name, test := range map[string]struct {
		conditions []corev1.PodCondition
		containers []corev1.ContainerStatus
		claim      corev1.PersistentVolumeClaimPhase
		ok         bool
		reason     string
		message    string
	}{
		"nothing known yet":       {nil, nil, "", false, v1beta1.ReasonProgressing, "Pod hs-0 is being started"},
		"no node":                 {[]corev1.PodCondition{unschedulable}, nil, corev1.ClaimBound, false, v1beta1.ReasonUnschedulable, "No node takes pod hs-0: 0/3 nodes are available: 3 Insufficient memory."},
		"no volume":               {[]corev1.PodCondition{unschedulable}, nil, corev1.ClaimPending, false, v1beta1.ReasonVolumePending, "claim data-hs-0 is not bound"},
		"a lost volume":           {nil, nil, corev1.ClaimLost, false, v1beta1.ReasonVolumePending, "The volume of claim data-hs-0 is lost"},
		"an image that is away":   {nil, []corev1.ContainerStatus{waiting(server, "ImagePullBackOff", "Back-off pulling image")}, "", false, v1beta1.ReasonImagePullFailed, "ImagePullBackOff: Back-off pulling image"},
		"a config that is away":   {nil, []corev1.ContainerStatus{waiting(server, "CreateContainerConfigError", `secret "db" not found`)}, "", false, v1beta1.ReasonCannotStart, `CreateContainerConfigError: secret "db" not found`},
		"being made":              {nil, []corev1.ContainerStatus{waiting(server, "ContainerCreating", "")}, "", false, v1beta1.ReasonProgressing, "Pod hs-0 is not ready"},
		"crashing":                {nil, []corev1.ContainerStatus{crashed(server, "Error: no")}, "", false, v1beta1.ReasonCrashing, "Headscale in pod hs-0 does not stay up: Error: no"},
		"crashing without a word": {nil, []corev1.ContainerStatus{crashed(server, "")}, "", false, v1beta1.ReasonCrashing, "it ended with status 1 and said nothing; kubectl logs hs-0 -c headscale --previous"},
		"out of memory":           {nil, []corev1.ContainerStatus{killed}, "", false, v1beta1.ReasonCrashing, "more memory than its limit"},
		"started once more":       {nil, []corev1.ContainerStatus{again}, "", false, v1beta1.ReasonCrashing, "Error: no"},
		"up again":                {nil, []corev1.ContainerStatus{recovered}, "", true, v1beta1.ReasonAvailable, "Headscale in pod hs-0 is ready"},
		"not answering":           {nil, []corev1.ContainerStatus{answering}, "", false, v1beta1.ReasonNotAnswering, "fails its health check"},
		"up, without a sidecar":   {nil, []corev1.ContainerStatus{running(server, true), crashed(sidecar, "no")}, "", true, v1beta1.ReasonAvailable, "ready"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "hs-0"}, Status: corev1.PodStatus{Conditions: test.conditions, ContainerStatuses: test.containers}}
			var claim *corev1.PersistentVolumeClaim
			if test.claim != "" {
				claim = &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data-hs-0"}, Status: corev1.PersistentVolumeClaimStatus{Phase: test.claim}}
			}
			got := stateOfHeadscale(pod, claim)
			NewWithT(t).Expect(fmt.Sprint(got.ok, " ", got.reason, " ", got.message)).To(
				And(HavePrefix(fmt.Sprint(test.ok, " ", test.reason, " ")), ContainSubstring(test.message)))
		})
	}
	leaving := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "hs-0", DeletionTimestamp: &metav1.Time{}}}
	now := metav1.Now()
	leaving.DeletionTimestamp = &now
	NewWithT(t).Expect(stateOfHeadscale(leaving, nil)).To(Equal(verdict{false, v1beta1.ReasonProgressing, "Pod hs-0 is being stopped"}))
}

var _ = Describe("The status, when the pod fails,", func() {
	It("says what a pod lacks, until Headscale is ready", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		claim := makeClaim(ctx, o.namespace, "headscale", "slow", corev1.ClaimPending)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		available := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonVolumePending, "kubectl describe pvc data-headscale-0"))

		claim.Status.Phase = corev1.ClaimBound
		Expect(admin.Status().Update(ctx, claim)).To(Succeed())
		setPod(ctx, pod, []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "False", Reason: corev1.PodReasonUnschedulable, Message: "0/1 nodes are available"}})
		Eventually(available).WithContext(ctx).Should(be("False", v1beta1.ReasonUnschedulable, "0/1 nodes are available"))

		setPod(ctx, pod, nil, waiting(server, "ErrImagePull", "not found"))
		Eventually(available).WithContext(ctx).Should(be("False", v1beta1.ReasonImagePullFailed, "headscale/headscale:v0.29.3 of Headscale cannot be had: ErrImagePull: not found"))

		runPod(ctx, o.namespace, "headscale", 1)
		setPod(ctx, pod, nil, running(server, true))
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
	})

	It("quotes Headscale's own last words", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		available := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)
		for _, test := range realLastWords {
			setPod(ctx, pod, nil, crashed(server, test.printed))
			Eventually(available).WithContext(ctx).Should(be("False", v1beta1.ReasonCrashing, "does not stay up: "+test.words), test.name)
			Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)(NewGomega(Fail)).Message).To(ContainSubstring(test.words))
		}
	})

	It("blames the API Key Manager for the key alone", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		pod := makePod(ctx, o.namespace, "headscale")
		key := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)
		setPod(ctx, pod, nil, running(server, true), crashed(sidecar, "apikey-manager: --expiration: must be positive"))
		Eventually(key).WithContext(ctx).Should(be("False", v1beta1.ReasonManagerFailing,
			"No API key is in Secret headscale-api-key yet. The API Key Manager in pod headscale-0 does not stay up: apikey-manager: --expiration: must be positive"))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, ""))

		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonManagerFailing, "is valid until"))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)(NewGomega(Fail))).To(be("True", v1beta1.ReasonManagerFailing, "does not stay up"))

		setPod(ctx, pod, nil, running(server, true), running(sidecar, true))
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyValid, ""))
	})
})
