package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

var _ = Describe("An upgrade", func() {
	// runVersion waits until a version runs, and is known to.
	runVersion := func(ctx context.Context, o *operator, version string) {
		GinkgoHelper()
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image(version))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(get[v1beta1.Headscale](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Status.Version", version))
	}
	start := func(ctx context.Context, version string) *operator {
		GinkgoHelper()
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", "{spec: {version: "+version+"}}")).To(Succeed())
		runVersion(ctx, o, version)
		return o
	}

	It("that leaves out a minor version is refused before the pod is touched", func(ctx context.Context) {
		o := start(ctx, "v0.27.1")
		before := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.3, config: {log: {level: debug}}}}`)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonUpgradeRefused,
			"spec.version cannot go from v0.27.1 to v0.29.3: minor versions must not be skipped, because each migrates the database; go to the latest v0.28 first"))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionStalled)(NewGomega(Fail))).To(be("True", v1beta1.ReasonUpgradeRefused, ""))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)(NewGomega(Fail))).To(be("True", v1beta1.ReasonAvailable, ""))
		o.touch(ctx, "headscale")
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail)).Generation).To(Equal(before.Generation))

		By("going step by step")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.28.0}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.28.0"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.3}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonUpgradeRefused, "from v0.27.1 to v0.29.3"), "v0.28.0 has not run yet")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.28.0}}`)).To(Succeed())
		runVersion(ctx, o, "v0.28.0")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.3}}`)).To(Succeed())
		runVersion(ctx, o, "v0.29.3")
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
	})

	It("that goes back is refused, unless the new version never ran", func(ctx context.Context) {
		o := start(ctx, "v0.28.0")
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.27.1}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonUpgradeRefused, "write v0.28.0 again"))
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))).To(image("v0.28.0"))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.9}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.29.9"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.28.0}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.28.0"))
	})

	It("whose new version was started and never became ready is not taken back, because the database may be migrated", func(ctx context.Context) {
		o := start(ctx, "v0.28.0")
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.3}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.29.3"))
		rollOut(ctx, o.namespace, "headscale", 0)
		pod := makePod(ctx, o.namespace, "headscale")
		setPod(ctx, pod, nil, waiting(server, "ImagePullBackOff", "no such image"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.28.0}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.28.0"), "it was not started")

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.3}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.29.3"))
		setPod(ctx, pod, nil, crashed(server, "cannot migrate"))
		started := HaveField("Annotations", HaveKeyWithValue(resources.AnnotationStartedVersion, "v0.29.3"))
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(started)
		Expect(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)).Status.Version).To(Equal("v0.28.0"), "what answered last")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.28.0}}`)).To(Succeed())
		refused := be("False", v1beta1.ReasonUpgradeRefused, "from v0.29.3 to v0.28.0: v0.29.3 was started and may have migrated the database")
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(refused)
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))).To(image("v0.29.3"))

		By("when the pod is gone, too")
		Expect(admin.Delete(ctx, pod)).To(Succeed())
		o.touch(ctx, "headscale")
		Expect(ready(NewGomega(Fail))).To(refused)

		By("which no version may be left out after, either")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.30.0}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonUpgradeRefused, "from v0.28.0 to v0.30.0"))

		By("until somebody says that the data is from before")
		Expect(admin.Patch(ctx, claim, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"headscale.infrado.cloud/started-version":null}}}`)))).To(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.28.0}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.28.0"))
	})

	It("to a version that has removed a key of the config is refused before the pod is touched", func(ctx context.Context) {
		o := start(ctx, "v0.28.0")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {randomize_client_port: true}}}`)).To(Succeed())
		runVersion(ctx, o, "v0.28.0")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.3}}`)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"spec.config.randomize_client_port is no longer a key of Headscale v0.29.3, which would not start with it: remove it"))
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))).To(image("v0.28.0"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {randomize_client_port: null}}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.29.3"))
	})

	It("is judged by what runs where an older operator wrote no version down", func(ctx context.Context) {
		o := start(ctx, "v0.27.1")
		o.stop()
		headscale := get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail))
		headscale.Status.Version = ""
		Expect(admin.Status().Update(ctx, headscale)).To(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.3}}`)).To(Succeed())
		startOperatorIn(o.namespace)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonUpgradeRefused, "from v0.27.1"))
	})
})

var _ = Describe("The version that ran last", func() {
	It("is written on the claim, for a Headscale that is recreated", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(
			HaveField("Annotations", HaveKeyWithValue(resources.AnnotationVersion, "v0.29.3")))
		before := o.settle(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))
	})

	It("is believed where there is no status, before anything is made", func(ctx context.Context) {
		o := startOperator(ctx)
		keepClaim(ctx, o.namespace, map[string]string{resources.AnnotationVersion: "v0.30.0"})
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be("False", v1beta1.ReasonUpgradeRefused, "from v0.30.0 to v0.29.3"))
		Expect(missing[appsv1.StatefulSet](ctx, o.namespace, "headscale")()).To(BeTrue())
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.30.1}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.30.1"))
	})
})

// image matches a StatefulSet that runs a version of Headscale.
func image(version string) OmegaMatcher {
	return HaveField("Spec.Template.Spec.Containers", ContainElement(HaveField("Image", "headscale/headscale:"+version)))
}
