package headscale

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// atWork is the situation of a Headscale that has been available for a day, with an API Key
// Manager that has run for as long, and a key that is not due for long.
func atWork() *situation {
	p := keyExpiring(podNow, podNow.Add(v1beta1.DefaultExpiration).Format(time.RFC3339))
	p.secret.Annotations[v1beta1.AnnotationCreatedAt] = podNow.Add(-time.Hour).Format(time.RFC3339)
	manager := running(sidecar, true)
	manager.State.Running.StartedAt = ago(24 * time.Hour)
	p.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "headscale-0"}, Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running(server, true), manager}}}
	p.headscale.Status.Conditions = []metav1.Condition{
		{Type: v1beta1.ConditionAvailable, Status: metav1.ConditionTrue, Reason: v1beta1.ReasonAvailable, LastTransitionTime: ago(24 * time.Hour)},
		{Type: v1beta1.ConditionAPIKeyReady, Status: metav1.ConditionTrue, Reason: v1beta1.ReasonKeyValid, LastTransitionTime: ago(time.Hour)},
	}
	return p
}

// asked is the ledger's entry of a key that was asked for some time ago.
func asked(before time.Duration) string {
	return "2027-04-01T00:00:00.123456Z@" + podNow.Add(-before).Format(time.RFC3339Nano)
}

// writtenBy is who wrote fields of a Secret, some time ago.
func writtenBy(manager, fields string, before time.Duration) metav1.ManagedFieldsEntry {
	at := ago(before)
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, Time: &at, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
}

func TestStateOfLedger(t *testing.T) {
	const request = `{"f:metadata":{"f:annotations":{"f:api-key.headscale.infrado.cloud/rotate-requested-at":{},"f:other":{}}}}`
	const other = `{"f:data":{"f:api-key":{}},"f:metadata":{"f:annotations":{"f:api-key.headscale.infrado.cloud/rotate-handled":{}}}}`
	annotate := func(p *situation, name, value string) { p.secret.Annotations[name] = value }
	requested := func(p *situation, before time.Duration) {
		annotate(p, v1beta1.AnnotationRotateRequestedAt, "now")
		p.secret.ManagedFields = []metav1.ManagedFieldsEntry{writtenBy("kubectl", request, before), writtenBy("apikey-manager", other, 0)}
	}
	failedBefore := func(p *situation) { p.headscale.Status.Conditions[1].Reason = v1beta1.ReasonRotationFailing }
	overdue := podNow.Add(240*time.Hour + keystate.OverdueAfter)
	for name, test := range map[string]struct {
		change    func(p *situation)
		reason    string
		message   string
		changesAt time.Time
	}{
		"nothing":         {func(*situation) {}, v1beta1.ReasonKeyValid, "is valid until", overdue},
		"a key asked for": {func(p *situation) { annotate(p, v1beta1.AnnotationPending, asked(59*time.Second)) }, v1beta1.ReasonKeyValid, "", podNow.Add(time.Second)},
		"and not come":    {func(p *situation) { annotate(p, v1beta1.AnnotationPending, asked(time.Minute)) }, v1beta1.ReasonRotationFailing, "A new API key was requested at 2027-01-01T11:59:00Z and has not been created; the API key in Secret headscale-api-key expires at", podNow.Add(v1beta1.DefaultExpiration)},
		"the first of several": {func(p *situation) {
			annotate(p, v1beta1.AnnotationPending, asked(time.Second)+", "+asked(2*time.Minute))
		}, v1beta1.ReasonRotationFailing, "", podNow.Add(v1beta1.DefaultExpiration)},
		"asked for before a key": {func(p *situation) { annotate(p, v1beta1.AnnotationPending, asked(2*time.Hour)) }, v1beta1.ReasonKeyValid, "", overdue},
		"rubbish": {func(p *situation) {
			annotate(p, v1beta1.AnnotationPending, "x@y,@,")
			annotate(p, v1beta1.AnnotationRetiring, "@,x")
		}, v1beta1.ReasonKeyValid, "", overdue},
		"failing, the next try": {func(p *situation) { annotate(p, v1beta1.AnnotationPending, asked(time.Second)); failedBefore(p) }, v1beta1.ReasonRotationFailing, "", podNow.Add(v1beta1.DefaultExpiration)},
		"failing, over":         {failedBefore, v1beta1.ReasonKeyValid, "", overdue},
		"a request":             {func(p *situation) { requested(p, 10*time.Second) }, v1beta1.ReasonKeyValid, "", podNow.Add(50 * time.Second)},
		"a request not heeded":  {func(p *situation) { requested(p, time.Minute) }, v1beta1.ReasonRotationFailing, `The new API key that was requested at 2027-01-01T11:59:00Z ("now") has not been created`, podNow.Add(v1beta1.DefaultExpiration)},
		"a request handled":     {func(p *situation) { requested(p, time.Hour); annotate(p, v1beta1.AnnotationRotateHandled, "now") }, v1beta1.ReasonKeyValid, "", overdue},
		"a key retired in time": {func(p *situation) {
			annotate(p, v1beta1.AnnotationRetiring, "old@"+podNow.Add(time.Hour).Format(time.RFC3339))
		}, v1beta1.ReasonKeyValid, "", podNow.Add(time.Hour + failingAfter)},
		"a key not retired": {func(p *situation) {
			annotate(p, v1beta1.AnnotationRetiring, "old@"+podNow.Add(-time.Hour).Format(time.RFC3339))
		}, v1beta1.ReasonRotationFailing, "The API key old was replaced, and Headscale should refuse it since 2027-01-01T11:00:00Z", podNow.Add(v1beta1.DefaultExpiration)},
		"the manager just begun": {func(p *situation) {
			requested(p, time.Hour)
			p.pod.Status.ContainerStatuses[1].State.Running.StartedAt = ago(0)
		}, v1beta1.ReasonKeyValid, "", podNow.Add(failingAfter)},
		"Headscale just back": {func(p *situation) {
			requested(p, time.Hour)
			p.headscale.Status.Conditions[0].Status = metav1.ConditionFalse
		}, v1beta1.ReasonKeyValid, "", podNow.Add(failingAfter)},
		"no manager": {func(p *situation) {
			requested(p, time.Hour)
			p.pod.Status.ContainerStatuses = p.pod.Status.ContainerStatuses[:1]
		}, v1beta1.ReasonKeyValid, "", overdue},
		"a manager that crashes": {func(p *situation) {
			requested(p, time.Hour)
			p.pod.Status.ContainerStatuses[1] = crashed(sidecar, "no")
		}, v1beta1.ReasonManagerFailing, "is crash-looping", overdue},
		"no Headscale":         {func(p *situation) { requested(p, time.Hour); p.pod = nil }, v1beta1.ReasonKeyValid, "", overdue},
		"overdue, not failing": {func(p *situation) { p.now = overdue }, v1beta1.ReasonKeyOverdue, "should have been replaced", podNow.Add(v1beta1.DefaultExpiration)},
		"overdue, about to fail": {func(p *situation) {
			p.now = overdue
			annotate(p, v1beta1.AnnotationPending, asked(podNow.Sub(overdue)+30*time.Second))
		}, v1beta1.ReasonKeyOverdue, "", overdue.Add(30 * time.Second)},
		"overdue, and it fails": {func(p *situation) {
			p.now = overdue
			annotate(p, v1beta1.AnnotationPending, asked(podNow.Sub(overdue)+time.Minute))
		}, v1beta1.ReasonRotationFailing, "", podNow.Add(v1beta1.DefaultExpiration)},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			p := atWork()
			test.change(p)
			_, err := stripSecret(p.secret)
			g.Expect(err).NotTo(HaveOccurred())
			got, _ := stateOfKey(p.scope, p.observed, availableWith(p))
			g.Expect(got.True).To(BeTrue(), "the stored key is good")
			g.Expect(got.Reason + ": " + got.Message).To(And(HavePrefix(test.reason+": "), ContainSubstring(test.message)))
			g.Expect(got.ChangesAt).To(BeTemporally("==", test.changesAt))
		})
	}
}

// availableWith is the state of a Headscale that is ready if it has a pod.
func availableWith(p *situation) status.Condition { return status.Condition{True: p.pod != nil} }

// A key that is missing is waited for, then its absence is a warning, and at last only
// somebody can help.
func TestStateOfMissingKey(t *testing.T) {
	missing := func(since time.Duration, reason string) *situation {
		p := atWork()
		p.secret = nil
		p.headscale.Status.Conditions[1] = metav1.Condition{Type: v1beta1.ConditionAPIKeyReady, Status: metav1.ConditionFalse, Reason: reason, LastTransitionTime: ago(since)}
		return p
	}
	for name, test := range map[string]struct {
		situation *situation
		reason    string
		stalled   bool
		changesIn time.Duration
	}{
		"for a moment":            {missing(10*time.Second, v1beta1.ReasonKeyPending), v1beta1.ReasonKeyPending, false, 50 * time.Second},
		"for a minute":            {missing(time.Minute, v1beta1.ReasonKeyPending), v1beta1.ReasonRotationFailing, false, 9 * time.Minute},
		"for longer":              {missing(9*time.Minute, v1beta1.ReasonRotationFailing), v1beta1.ReasonRotationFailing, false, time.Minute},
		"for too long":            {missing(10*time.Minute, v1beta1.ReasonRotationFailing), v1beta1.ReasonRotationFailing, true, 0},
		"after a conflict":        {missing(9*time.Minute, v1beta1.ReasonConflict), v1beta1.ReasonKeyPending, false, time.Minute},
		"while Headscale is away": {func() *situation { p := missing(time.Hour, v1beta1.ReasonKeyPending); p.pod = nil; return p }(), v1beta1.ReasonKeyPending, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, _ := stateOfKey(test.situation.scope, test.situation.observed, availableWith(test.situation))
			g.Expect(got.True).To(BeFalse())
			g.Expect(got.Reason).To(Equal(test.reason))
			expectOutlook(g, got, test.stalled, test.changesIn)
		})
	}
}

func TestStripSecretKeepsWhoAskedForAKey(t *testing.T) {
	g := NewWithT(t)
	secret := &metav1.PartialObjectMetadata{}
	secret.ManagedFields = []metav1.ManagedFieldsEntry{
		writtenBy("kubectl", `{"f:metadata":{"f:annotations":{".":{},"f:api-key.headscale.infrado.cloud/rotate-requested-at":{},"f:`+strings.Repeat("x", 100)+`":{}}}}`, time.Hour),
		writtenBy("apikey-manager", `{"f:data":{}}`, time.Minute), writtenBy("broken", `{`, 0), {Manager: "empty"},
	}
	_, err := stripSecret(secret)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(secret.ManagedFields).To(HaveExactElements(HaveField("Manager", "kubectl")))
	g.Expect(len(secret.ManagedFields[0].FieldsV1.GetRawBytes())).To(BeNumerically("<", 100))
	g.Expect(keystate.RequestedSince(secret)).To(BeTemporally("==", podNow.Add(-time.Hour)))
}

var _ = Describe("A rotation that fails", func() {
	It("is told, and that it is over", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyPending, ""))

		By("no key coming")
		o.advance(failingAfter + time.Second)
		o.touch(ctx, "headscale")
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonRotationFailing, "kubectl logs headscale-0 -c apikey-manager tells why"))
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))

		// An operator that is stopped sends none of the events that it has not sent yet.
		story := []any{
			HavePrefix("Normal Created"), HavePrefix("Warning RotationFailing: No API key was stored"), HavePrefix("Normal KeyStored"),
			Equal("Normal Recovered: Headscale is running with the desired configuration again, after RotationFailing"),
		}
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(story...))

		By("a request not being heeded, which is noticed when another operator looks")
		o.stop()
		annotateSecret(ctx, secret, map[string]any{v1beta1.AnnotationRotateRequestedAt: "please"})
		again := startOperatorIn(o.namespace)
		again.advance(2 * time.Minute)
		again.touch(ctx, "headscale")
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonRotationFailing, `("please") has not been created; the API key in Secret headscale-api-key expires at`))
		annotateSecret(ctx, secret, map[string]any{v1beta1.AnnotationRotateHandled: "please", v1beta1.AnnotationKeyPrefix: "second"})
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		story = append(story,
			HavePrefix("Warning RotationFailing: The new API key that was requested"), HavePrefix("Normal KeyRotated"),
			Equal("Normal Recovered: Headscale is running with the desired configuration again, after RotationFailing"))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(story...))
	})
})
