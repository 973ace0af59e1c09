package controller

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/internal/resources"
)

// makePod makes the pod of a Headscale as the StatefulSet controller would.
func makePod(ctx context.Context, namespace, name string) *corev1.Pod {
	GinkgoHelper()
	var live *appsv1.StatefulSet
	Eventually(func(g Gomega) { live = get[appsv1.StatefulSet](ctx, namespace, name)(g) }).WithContext(ctx).Should(Succeed())
	yes := true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name + "-0", Labels: live.Spec.Template.Labels, Annotations: live.Spec.Template.Annotations,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: live.Name, UID: live.UID, Controller: &yes, BlockOwnerDeletion: &yes}},
		},
		Spec: *live.Spec.Template.Spec.DeepCopy(),
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-" + name + "-0"},
	}})
	// Nobody makes ServiceAccounts' tokens here; nothing asks for one.
	Expect(admin.Create(ctx, pod)).To(Succeed())
	return pod
}

// setPod writes the state of a pod, as the scheduler and the kubelet would.
func setPod(ctx context.Context, pod *corev1.Pod, conditions []corev1.PodCondition, containers ...corev1.ContainerStatus) {
	GinkgoHelper()
	for i := range containers {
		if containers[i].Image == "" {
			containers[i].Image = "headscale/headscale:v0.29.3"
		}
	}
	pod.Status.Conditions, pod.Status.ContainerStatuses = conditions, containers
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
	claim.Namespace, claim.Name = namespace, "data-"+name+"-0"
	claim.Spec.StorageClassName = &class
	claim.Spec.VolumeName = "volume-" + namespace
	Expect(admin.Create(ctx, claim)).To(Succeed())
	claim.Status = corev1.PersistentVolumeClaimStatus{Phase: phase, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}
	Expect(admin.Status().Update(ctx, claim)).To(Succeed())
	return claim
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
	Expect(admin.Status().Update(ctx, claim)).To(Succeed())
	return claim
}

// names of the containers, short for the tests.
const (
	server  = resources.ContainerHeadscale
	sidecar = resources.ContainerManager
)
