package headscale

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/resources"
)

// makePod makes the pod of a Headscale as the StatefulSet controller would: one of
// another template makes way, and one that lost its StatefulSet gets the new one.
func makePod(ctx context.Context, namespace, name string) *corev1.Pod {
	GinkgoHelper()
	var live *appsv1.StatefulSet
	Eventually(func(g Gomega) { live = get[appsv1.StatefulSet](ctx, namespace, name)(g) }).WithContext(ctx).Should(Succeed())
	pod := podOf(live)
	old := &corev1.Pod{}
	switch err := admin.Get(ctx, client.ObjectKeyFromObject(pod), old); {
	case apierrors.IsNotFound(err):
	case err != nil:
		Fail(err.Error())
	case old.Labels[appsv1.ControllerRevisionHashLabelKey] == revisionOf(live):
		old.OwnerReferences = pod.OwnerReferences
		Expect(admin.Update(ctx, old)).To(Succeed())
		return old
	default:
		Expect(admin.Delete(ctx, old)).To(Succeed())
	}
	// Nobody makes ServiceAccounts' tokens here; nothing asks for one. What limited pods may be in the
	// API server's cache for 30 seconds after it was deleted: the StatefulSet controller retries, too.
	Eventually(func() error { return admin.Create(ctx, pod) }).WithContext(ctx).WithTimeout(45 * time.Second).Should(Succeed())
	return pod
}

// podOf is the pod that the StatefulSet controller would make.
func podOf(set *appsv1.StatefulSet) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: set.Namespace, Name: set.Name + "-0", Labels: maps.Clone(set.Spec.Template.Labels), Annotations: set.Spec.Template.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))},
		},
		Spec: *set.Spec.Template.Spec.DeepCopy(),
	}
	pod.Labels[appsv1.ControllerRevisionHashLabelKey] = revisionOf(set)
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-" + set.Name + "-0"},
	}})
	return pod
}

// revisionOf names the version of a StatefulSet's template.
func revisionOf(set *appsv1.StatefulSet) string {
	GinkgoHelper()
	template, err := json.Marshal(set.Spec.Template)
	Expect(err).NotTo(HaveOccurred())
	hash := fnv.New32a()
	_, _ = hash.Write(template)
	return fmt.Sprintf("%s-%x", set.Name, hash.Sum32())
}

// setPod writes the state of a pod, as the scheduler and the kubelet would.
func setPod(ctx context.Context, pod *corev1.Pod, conditions []corev1.PodCondition, containers ...corev1.ContainerStatus) {
	GinkgoHelper()
	setPodStatus(ctx, pod, corev1.PodStatus{Conditions: conditions, ContainerStatuses: containers})
}

// setPodStatus is setPod for all that is said of a pod.
func setPodStatus(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) {
	GinkgoHelper()
	for i := range status.ContainerStatuses {
		if status.ContainerStatuses[i].Image == "" {
			status.ContainerStatuses[i].Image = "headscale/headscale:v0.29.3"
		}
	}
	Expect(admin.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
	status.QOSClass = pod.Status.QOSClass
	pod.Status = status
	Expect(admin.Status().Update(ctx, pod)).To(Succeed())
}

// running is the state of a container that runs.
func running(name string, ready bool) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: ready, Started: &ready, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

// waiting is the state of a container that does not run.
func waiting(name, reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

// crashed is the state of a container that ended and waits to be started again.
func crashed(name, message string) corev1.ContainerStatus {
	status := waiting(name, "CrashLoopBackOff", "back-off 5m0s restarting failed container")
	status.RestartCount = 7
	status.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: message}
	return status
}

// makeClaim makes the claim of a Headscale's data volume in a phase, as the
// StatefulSet controller and the volume controller would.
func makeClaim(ctx context.Context, namespace, name, class string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
	GinkgoHelper()
	var live *appsv1.StatefulSet
	Eventually(func(g Gomega) { live = get[appsv1.StatefulSet](ctx, namespace, name)(g) }).WithContext(ctx).Should(Succeed())
	claim := live.Spec.VolumeClaimTemplates[0].DeepCopy()
	// As the StatefulSet controller does, whatever labels the template has.
	maps.Copy(claim.Labels, live.Spec.Selector.MatchLabels)
	claim.Namespace, claim.Name = namespace, "data-"+name+"-0"
	claim.Spec.StorageClassName = &class
	claim.Spec.VolumeName = "volume-" + namespace
	Expect(admin.Create(ctx, claim)).To(Succeed())
	claim.Status = corev1.PersistentVolumeClaimStatus{Phase: phase, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}
	setClaimStatus(ctx, claim)
	return claim
}

// setClaimStatus writes the status of a claim, as the volume controller would, beside an
// operator that writes to its metadata.
func setClaimStatus(ctx context.Context, claim *corev1.PersistentVolumeClaim) {
	GinkgoHelper()
	Expect(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		live := &corev1.PersistentVolumeClaim{}
		if err := admin.Get(ctx, client.ObjectKeyFromObject(claim), live); err != nil {
			return err
		}
		live.Status = claim.Status
		return admin.Status().Update(ctx, live)
	})).To(Succeed())
}

// keepClaim makes the claim of a Headscale that is not there yet, of a class that is named
// after the namespace, as it was left by one that was.
func keepClaim(ctx context.Context, namespace string, annotations map[string]string) *corev1.PersistentVolumeClaim {
	GinkgoHelper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "data-headscale-0", Annotations: annotations},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &namespace, VolumeName: "volume-" + namespace,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	Expect(admin.Create(ctx, claim)).To(Succeed())
	claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: claim.Spec.Resources.Requests}
	setClaimStatus(ctx, claim)
	return claim
}

// names of the containers, short for the tests.
const (
	server  = resources.ContainerHeadscale
	sidecar = resources.ContainerManager
)
