package controller

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// kstatus judges a Headscale by the rules that kstatus has published for resources of
// any kind: an old generation, then Reconciling, Stalled and Ready, in this order.
func kstatus(headscale *v1beta1.Headscale) string {
	conditions := headscale.Status.Conditions
	switch {
	case !headscale.DeletionTimestamp.IsZero():
		return "Terminating"
	case headscale.Status.ObservedGeneration != headscale.Generation:
		return "InProgress"
	case meta.IsStatusConditionTrue(conditions, "Reconciling"):
		return "InProgress"
	case meta.IsStatusConditionTrue(conditions, "Stalled"):
		return "Failed"
	case meta.FindStatusCondition(conditions, "Ready") != nil && !meta.IsStatusConditionTrue(conditions, "Ready"):
		return "InProgress"
	default:
		return "Current"
	}
}

var _ = Describe("For Argo CD and Flux, a Headscale", func() {
	judged := func(ctx context.Context, o *operator) func(Gomega) string {
		return func(g Gomega) string { return kstatus(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(g)) }
	}

	It("is in progress until it is ready, and again while it is being changed", func(ctx context.Context) {
		o := startOperator(ctx)
		o.stop()
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(judged(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"), "no operator has seen it")

		o = startOperatorIn(o.namespace)
		progressing := condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)
		Eventually(progressing).WithContext(ctx).Should(be("True", v1beta1.ReasonProgressing, ""))
		Expect(judged(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(progressing).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyPending, ""))
		Expect(judged(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"))
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(judged(ctx, o)).WithContext(ctx).Should(Equal("Current"))
		Expect(progressing(NewGomega(Fail))).To(be("False", v1beta1.ReasonComplete, ""))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {log: {level: debug}}}}`)).To(Succeed())
		Expect(judged(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReconciling)).WithContext(ctx).Should(be("True", v1beta1.ReasonProgressing, "is being replaced"))
		Expect(judged(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(judged(ctx, o)).WithContext(ctx).Should(Equal("Current"))
		Expect(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)).Status.Conditions).NotTo(
			ContainElement(HaveField("Type", BeElementOf(v1beta1.ConditionReconciling, v1beta1.ConditionStalled))))
	})

	It("has failed where only the user can help", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"    acl_policy_path: /policy.hujson\n")).To(Succeed())
		Eventually(judged(ctx, o)).WithContext(ctx).Should(Equal("Failed"))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)(NewGomega(Fail))).To(be("False", v1beta1.ReasonInvalidConfig, "spec.config.acl_policy_path"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {acl_policy_path: null}}}`)).To(Succeed())
		Eventually(judged(ctx, o)).WithContext(ctx).Should(Equal("InProgress"))
	})

	It("shows an overdue key within a minute, without anyone touching it", func(ctx context.Context) {
		o := startOperator(ctx)
		o.advance(overdueAfter - 3*time.Second)
		secret := keySecret(o.namespace, "headscale-api-key", time.Now().Add(time.Hour))
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest+"  api_key: {expiration: 2h, rotation_buffer: 1h}\n")).To(Succeed())
		key := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyOverdue, ""))
	})
})
