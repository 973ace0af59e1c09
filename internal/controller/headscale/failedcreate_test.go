package headscale

import (
	"context"
	"errors"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// tellFailure records an event about a StatefulSet as its controller does.
func tellFailure(ctx context.Context, live *appsv1.StatefulSet, message string, at time.Time) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: live.Namespace, GenerateName: live.Name + "."},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: live.Namespace, Name: live.Name, UID: live.UID, ResourceVersion: live.ResourceVersion,
		},
		Reason: "FailedCreate", Message: message, Type: corev1.EventTypeWarning,
		Source:         corev1.EventSource{Component: "statefulset-controller"},
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at), Count: 1,
	})).To(Succeed())
}

// failToCreate does what the StatefulSet controller does where the API server refuses the
// claim or the pod with some words, and returns all that it says.
func failToCreate(ctx context.Context, namespace, words string) string {
	GinkgoHelper()
	live := get[appsv1.StatefulSet](ctx, namespace, "headscale")(NewGomega(Fail))
	claim := live.Spec.VolumeClaimTemplates[0].DeepCopy()
	claim.Namespace, claim.Name = namespace, "data-headscale-0"
	pod := &corev1.Pod{ObjectMeta: *live.Spec.Template.ObjectMeta.DeepCopy(), Spec: *live.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = namespace, "headscale-0"
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name},
	}})
	// What refuses them reads the quotas and the namespace from caches of its own.
	Eventually(func() error {
		return errors.Join(admin.Create(ctx, claim.DeepCopy(), client.DryRunAll), admin.Create(ctx, pod.DeepCopy(), client.DryRunAll))
	}).WithContext(ctx).WithTimeout(45 * time.Second).Should(MatchError(ContainSubstring(words)))
	message := ""
	if err := admin.Create(ctx, claim); err != nil {
		message = fmt.Sprintf("create Claim %s Pod %s in StatefulSet %s failed error: %s", claim.Name, pod.Name, live.Name, err)
	} else {
		err := admin.Create(ctx, pod)
		Expect(err).To(HaveOccurred())
		message = fmt.Sprintf("create Pod %s in StatefulSet %s failed error: %s", pod.Name, live.Name, err)
	}
	// The status may be written long after it, which would make it an event of an earlier attempt.
	tellFailure(ctx, live, message, time.Now().Add(30*time.Second))
	live.Status = appsv1.StatefulSetStatus{ObservedGeneration: live.Generation}
	Expect(admin.Status().Update(ctx, live)).To(Succeed())
	return message
}

// quota is a quota as the quota controller leaves it.
func quota(ctx context.Context, namespace string, hard corev1.ResourceList) {
	GinkgoHelper()
	used := corev1.ResourceList{}
	for name := range hard {
		used[name] = resource.MustParse("0")
	}
	made := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "quota"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	Expect(admin.Create(ctx, made)).To(Succeed())
	made.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: used}
	Expect(admin.Status().Update(ctx, made)).To(Succeed())
}

var _ = Describe("A pod that cannot be created", func() {
	for name, test := range map[string]struct {
		forbid func(context.Context, string)
		words  string
	}{
		"because of a LimitRange": {func(ctx context.Context, namespace string) {
			Expect(admin.Create(ctx, &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "limits"}, Spec: corev1.LimitRangeSpec{
				Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Min: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}},
			}})).To(Succeed())
		}, "minimum cpu usage per Container is 1"},
		"because of a quota": {func(ctx context.Context, namespace string) {
			quota(ctx, namespace, corev1.ResourceList{corev1.ResourceRequestsCPU: resource.MustParse("10m")})
		}, "exceeded quota: quota"},
		"because of a quota on claims": {func(ctx context.Context, namespace string) {
			quota(ctx, namespace, corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: resource.MustParse("0")})
		}, "exceeded quota: quota"},
		"because of the Pod Security Standard": {func(ctx context.Context, namespace string) {
			Expect(admin.Patch(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, client.RawPatch("application/merge-patch+json",
				[]byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`)))).To(Succeed())
			change(ctx, namespace, "headscale", func(live *appsv1.StatefulSet) { live.Spec.Template.Spec.HostNetwork = true })
		}, `violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)`},
	} {
		It(name+" is explained, until it is there", func(ctx context.Context) {
			o := startOperator(ctx)
			Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
			Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
			test.forbid(ctx, o.namespace)
			words := failToCreate(ctx, o.namespace, test.words)
			Expect(words).To(ContainSubstring(test.words))
			ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
			Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonPodMissing,
				"There is no pod headscale-0, because Kubernetes refuses to create it or its volume claim: "+words))

			for _, list := range []client.Object{&corev1.LimitRange{}, &corev1.ResourceQuota{}} {
				Expect(admin.DeleteAllOf(ctx, list, client.InNamespace(o.namespace))).To(Succeed())
			}
			change(ctx, o.namespace, "headscale", func(live *appsv1.StatefulSet) { live.Spec.Template.Spec.HostNetwork = false })
			runPod(ctx, o.namespace, "headscale", 1)
			Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, "Headscale is running with the desired configuration"))
		})
	}

	It("is explained though the event comes after all else, without credentials, and without what is over", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		live := rollOut(ctx, o.namespace, "headscale", 0)
		tellFailure(ctx, live, "create Pod headscale-0 in StatefulSet headscale failed error: long ago", time.Now().Add(-time.Hour))
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "There is no pod headscale-0; kubectl describe statefulset"))
		o.touch(ctx, "headscale")
		Expect(ready(NewGomega(Fail))).To(be("False", v1beta1.ReasonProgressing, "There is no pod headscale-0; kubectl describe statefulset"))

		tellFailure(ctx, live, "create Pod headscale-0 in StatefulSet headscale failed error: webhook https://me:TOPSECRET@hook refuses", time.Now())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonPodMissing, "failed error: webhook https://"))
		Expect(ready(NewGomega(Fail)).Message).NotTo(ContainSubstring("TOPSECRET"))
	})

	It("is looked for among many events, page by page", func(ctx context.Context) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "events-"}}
		Expect(admin.Create(ctx, namespace)).To(Succeed())
		live := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "headscale", UID: "some"}}
		for i := range eventPage*maxEventPages + 1 {
			tellFailure(ctx, live, fmt.Sprint(i), time.Now())
		}
		r, told := &Reconciler{Live: admin}, 0
		Expect(r.eachEvent(ctx, live, func(*corev1.Event) { told++ })).To(Succeed())
		Expect(told).To(Equal(eventPage * maxEventPages))
	})
})
