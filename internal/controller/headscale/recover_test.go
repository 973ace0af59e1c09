package headscale

import (
	"context"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("A Headscale on which the operator panics", func() {
	It("reports that, and does not stop others", func(ctx context.Context) {
		o := startOperator(ctx)
		o.panics.Store(ptr.To("/configmaps/bad"))
		Expect(create(ctx, o.namespace, strings.Replace(shortest, "name: headscale", "name: bad", 1))).To(Succeed())
		Eventually(condition(ctx, o.namespace, "bad", v1beta1.ConditionReady)).WithContext(ctx).Should(And(
			be(metav1.ConditionFalse, v1beta1.ReasonReconcileFailed, "the operator panicked while reconciling this Headscale"),
			HaveField("Message", And(ContainSubstring("no writes to"), Not(ContainSubstring("TOPSECRET"))))))
		Eventually(seriesOf(o.metrics)).WithContext(ctx).Should(HaveKeyWithValue(o.series("reconcile_errors_total", "bad", `kind="transient"`), BeNumerically(">=", 1)))

		// It goes on panicking, in more reconciles than there are workers.
		for range 20 {
			o.touch(ctx, "bad")
		}
		begin := time.Now()
		Expect(create(ctx, o.namespace, shortest+"  api_key: {secret_name: other}\n")).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		GinkgoWriter.Println("the other was there after", time.Since(begin))

		o.panics.Store(nil)
		o.touch(ctx, "bad")
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "bad")).WithContext(ctx).ShouldNot(BeNil())
		Eventually(condition(ctx, o.namespace, "bad", v1beta1.ConditionReady)).WithContext(ctx).Should(be(metav1.ConditionFalse, v1beta1.ReasonProgressing, ""))
	})
})
