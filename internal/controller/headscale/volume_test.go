package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	gtypes "github.com/onsi/gomega/types"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
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

	// have matches a claim by the size that it asks for.
	have := func(size string) gtypes.GomegaMatcher {
		return WithTransform(func(claim *corev1.PersistentVolumeClaim) string { return storageOf(claim).String() }, Equal(size))
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
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(have("2Gi"))
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "Recreating the StatefulSet"))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)(NewGomega(Fail))).To(be("True", v1beta1.ReasonAvailable, ""))

		orphan(ctx, o.namespace, pod)
		renewed := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))
		Expect(renewed.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage().String()).To(Equal("2Gi"))
		Expect(podOf(renewed).Labels).To(Equal(pod.Labels))
		Expect(get[corev1.Pod](ctx, o.namespace, "headscale-0")(NewGomega(Fail)).UID).To(Equal(pod.UID))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		before := o.settle(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))
	})

	It("does not delete a StatefulSet that a quota would not let it create again", func(ctx context.Context) {
		o := startOperator(ctx)
		makeClass(ctx, o.namespace, true)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		const count = corev1.ResourceName("count/statefulsets.apps")
		quota(ctx, o.namespace, corev1.ResourceList{count: resource.MustParse("1")})
		uses := func(used string) {
			GinkgoHelper()
			lowered := get[corev1.ResourceQuota](ctx, o.namespace, "quota")(NewGomega(Fail))
			lowered.Status.Used = corev1.ResourceList{count: resource.MustParse(used)}
			Expect(admin.Status().Update(ctx, lowered)).To(Succeed())
			Eventually(func(g Gomega) {
				another := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g)
				another.ObjectMeta = metav1.ObjectMeta{Namespace: o.namespace, Name: "another"}
				g.Expect(admin.Create(ctx, another, client.DryRunAll)).To(MatchError(ContainSubstring("used: " + string(count) + "=" + used)))
			}).WithContext(ctx).Should(Succeed())
		}
		uses("2") // The quota was lowered: there is another StatefulSet.
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(have("2Gi"))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonReconcileFailed,
			"asking whether the StatefulSet can be recreated to expand the volume: "))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)(NewGomega(Fail)).Message).To(ContainSubstring("exceeded quota: quota"))
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail)).DeletionTimestamp).To(BeNil())

		By("deleting it where that makes room for the new one")
		uses("1")
		o.touch(ctx, "headscale")
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(HaveField("DeletionTimestamp", BeNil()))
	})

	It("reads from the words of a quota whether a deletion makes room", func() {
		for message, room := range map[string]bool{
			"exceeded quota: q, requested: count/statefulsets.apps=1, used: count/statefulsets.apps=1, limited: count/statefulsets.apps=1": true,
			"exceeded quota: q, requested: a=1,b=1, used: a=1,b=1k, limited: a=1,b=1000":                                                   true,
			"exceeded quota: q, requested: count/statefulsets.apps=1, used: count/statefulsets.apps=2, limited: count/statefulsets.apps=1": false,
			"exceeded quota: q, requested: count/statefulsets.apps=1, used: count/statefulsets.apps=1, limited: count/statefulsets.apps=0": false,
			"exceeded quota: q, requested: a=1,b=1, used: a=1,b=2, limited: a=1,b=1":                                                       false,
			"exceeded quota: q, requested: a=1, used: a=one, limited: a=1":                                                                 false,
			"exceeded quota: q, requested: a=1, used: a=1, limited: a=one":                                                                 false,
			"exceeded quota: q":                              false,
			"statefulsets.apps is forbidden: User may not":   false,
			"used: a=1, limited: a=1, of nothing in a quota": false,
		} {
			Expect(quotaLeavesRoom(`statefulsets.apps "headscale" is forbidden: `+message)).To(Equal(room), message)
		}
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
			`spec.persistent_volume_claim.size cannot be changed from "1Gi" to "2Gi", because StorageClass `+o.namespace+` does not allow volume expansion: set its allowVolumeExpansion to true if its volumes can be expanded, write "1Gi" again`))
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))).To(image("v0.29.4"), "the rest of the change is carried out")
		before := o.settle(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 1024Mi}}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).ShouldNot(HaveField("Reason", v1beta1.ReasonInvalidConfig))
	})

	It("is tried again when the storage class allows it, or the quota", func(ctx context.Context) {
		growing := &expansion{from: resource.MustParse("1Gi"), to: resource.MustParse("2Gi")}
		failed := status.Classify(cannotExpand(growing, "it is so", "change that"))
		Expect(failed.RetryAfter).To(Equal(expansionRetry))
		Expect(failed.Reason).To(Equal(v1beta1.ReasonInvalidConfig))
		Expect(failed.Message).To(ContainSubstring("because it is so: change that, write"))
		Expect(failed.Stalled()).To(BeTrue())

		o := startOperator(ctx)
		makeClass(ctx, o.namespace, false)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "does not allow"))
		class := get[storagev1.StorageClass](ctx, "", o.namespace)(NewGomega(Fail))
		yes := true
		class.AllowVolumeExpansion = &yes
		Expect(admin.Update(ctx, class)).To(Succeed())
		o.touch(ctx, "headscale")
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(have("2Gi"))
	})

	It("is asked for where the volume is one that was kept from before", func(ctx context.Context) {
		o := startOperator(ctx)
		makeClass(ctx, o.namespace, true)
		claim := keepClaim(ctx, o.namespace, nil)
		Expect(create(ctx, o.namespace, shortest+"  persistent_volume_claim: {size: 5Gi}\n")).To(Succeed())
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(have("5Gi"))
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail)).DeletionTimestamp).To(BeNil())

		By("refusing another class, which that volume cannot get")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {storage_class_name: fast}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "storage_class_name"))
	})

	It("of another class than the one that was kept is refused", func(ctx context.Context) {
		o := startOperator(ctx)
		makeClass(ctx, o.namespace, true)
		keepClaim(ctx, o.namespace, nil)
		Expect(create(ctx, o.namespace, shortest+"  persistent_volume_claim: {storage_class_name: fast}\n")).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			`spec.persistent_volume_claim.storage_class_name is "fast", but the existing claim data-headscale-0 has "`+o.namespace+`": set it to "`+o.namespace+`", or remove it`))
	})

	It("is asked for where the claim has none of our labels", func(ctx context.Context) {
		o := startOperator(ctx)
		makeClass(ctx, o.namespace, true)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(HaveField("Labels", HaveKey(resources.LabelHeadscale)))
		Expect(admin.Patch(ctx, claim, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":null}}`)))).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(have("2Gi"))
	})

	It("is asked for by an operator that may not read storage classes", func(ctx context.Context) {
		o := startOperatorAs(namespacedUser, narrowNamespace(ctx))
		makeClass(ctx, o.namespace, true)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(have("2Gi"))
	})

	It("waits for a claim that is not bound yet", func(ctx context.Context) {
		o := startOperator(ctx)
		makeClass(ctx, o.namespace, true)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimPending)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be("False", v1beta1.ReasonVolumeWaiting, "Claim data-headscale-0 must be bound before its volume can be expanded"))
		claim.Status.Phase = corev1.ClaimBound
		setClaimStatus(ctx, claim)
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(have("2Gi"))
	})

	It("is not reported where the claim is gone", func(ctx context.Context) {
		o := startOperator(ctx)
		makeClass(ctx, o.namespace, true)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		claim.Name = "data-deleted-0"
		silent := &Reconciler{Client: o.reconciler.Client, Live: o.reconciler.Live, Events: failingRecorder{}}
		Expect(silent.expandClaim(ctx, scope{headscale: get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail))},
			claim, &expansion{from: resource.MustParse("1Gi"), to: resource.MustParse("2Gi")})).To(Succeed())
	})
})

// failingRecorder fails the spec that records an event.
type failingRecorder struct{}

func (failingRecorder) Eventf(_, _ runtime.Object, _, reason, _, _ string, _ ...any) {
	Fail("an event " + reason)
}
