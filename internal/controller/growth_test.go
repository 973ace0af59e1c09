package controller

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("A larger data volume", func() {
	// makeClass makes a StorageClass.
	makeClass := func(ctx context.Context, name string, expandable bool) {
		GinkgoHelper()
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "example.com/disk", AllowVolumeExpansion: &expandable}
		Expect(admin.Create(ctx, class)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, class)).To(Succeed()) })
	}
	// orphan does what the garbage collector would: it lets go of the pod, and then the
	// StatefulSet can go.
	orphan := func(ctx context.Context, namespace string, pod *corev1.Pod) {
		GinkgoHelper()
		var old *appsv1.StatefulSet
		Eventually(func(g Gomega) {
			old = get[appsv1.StatefulSet](ctx, namespace, "headscale")(g)
			g.Expect(old.DeletionTimestamp).NotTo(BeNil())
			g.Expect(old.Finalizers).To(ConsistOf(metav1.FinalizerOrphanDependents))
		}).WithContext(ctx).Should(Succeed())
		pod.OwnerReferences = nil
		Expect(admin.Update(ctx, pod)).To(Succeed())
		old.Finalizers = nil
		Expect(admin.Update(ctx, old)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, namespace, "headscale")).WithContext(ctx).ShouldNot(HaveField("UID", old.UID))
	}

	It("is asked for, and the pod goes on running", func(ctx context.Context) {
		o := startOperator(ctx)
		makeClass(ctx, o.namespace, true)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n  persistent_volume_claim: {storage_class_name: "+o.namespace+"}\n")).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		setPod(ctx, pod, nil, running(server, true))
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		runPod(ctx, o.namespace, "headscale", 1)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(
			WithTransform(func(claim *corev1.PersistentVolumeClaim) string { return storageOf(claim).String() }, Equal("2Gi")))
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "is being made anew"))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)(NewGomega(Fail))).To(be("True", v1beta1.ReasonAvailable, ""))

		orphan(ctx, o.namespace, pod)
		renewed := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))
		Expect(renewed.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage().String()).To(Equal("2Gi"))
		Expect(renewed.Spec.Template.Labels).To(Equal(pod.Labels))
		Expect(get[corev1.Pod](ctx, o.namespace, "headscale-0")(NewGomega(Fail)).UID).To(Equal(pod.UID))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		o.touch(ctx, "headscale")
		before := o.written()
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))
	})

	It("is refused where the storage class does not allow it, and is not tried again and again", func(ctx context.Context) {
		o := startOperator(ctx)
		makeClass(ctx, o.namespace, false)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		runPod(ctx, o.namespace, "headscale", 1)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.4, persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			`spec.persistent_volume_claim.size cannot be changed from "1Gi" to "2Gi", because StorageClass `+o.namespace+` does not allow volumes to grow (allowVolumeExpansion): write "1Gi" again`))
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))).To(image("v0.29.4"), "the rest of the change is carried out")
		o.touch(ctx, "headscale")
		before := o.written()
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 1024Mi}}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).ShouldNot(HaveField("Reason", v1beta1.ReasonInvalidConfig))
	})

	It("waits for a claim that is not bound yet", func(ctx context.Context) {
		o := startOperator(ctx)
		makeClass(ctx, o.namespace, true)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimPending)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be("False", v1beta1.ReasonVolumeWaiting, "Claim data-headscale-0 must be bound before its volume can grow"))
		claim.Status.Phase = corev1.ClaimBound
		Expect(admin.Status().Update(ctx, claim)).To(Succeed())
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(
			WithTransform(func(claim *corev1.PersistentVolumeClaim) string { return storageOf(claim).String() }, Equal("2Gi")))
	})
})
