package headscale

import (
	"context"
	"fmt"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// noPod is what becomes of preflights whose pods nobody creates.
var noPod = &corev1.PodStatus{Reason: "none"}

// runPreflight does what the Job controller and the kubelet would for the Jobs that the operator
// has created, until their pods are in the state that the spec wants.
func (o *operator) runPreflight() {
	defer GinkgoRecover()
	status := o.preflight.Load()
	if status == nil {
		status = &corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running(resources.ContainerHeadscale, true)}}
	}
	if status == noPod {
		return
	}
	ctx := context.Background()
	jobs := &batchv1.JobList{}
	Expect(admin.List(ctx, jobs, client.InNamespace(o.namespace))).To(Succeed())
	for i := range jobs.Items {
		if jobs.Items[i].Labels[v1beta1.LabelComponent] != "preflight" {
			continue
		}
		runJob(ctx, &jobs.Items[i], status)
	}
}

// runJob makes the pod of a Job, in a state.
func runJob(ctx context.Context, job *batchv1.Job, status *corev1.PodStatus) {
	GinkgoHelper()
	pod := &corev1.Pod{ObjectMeta: *job.Spec.Template.ObjectMeta.DeepCopy(), Spec: *job.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = job.Namespace, fmt.Sprintf("%s-%.5s", job.Name, job.UID)
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}
	Expect(client.IgnoreAlreadyExists(admin.Create(ctx, pod))).To(Succeed())
	setPodStatus(ctx, pod, *status.DeepCopy())
}

// emptyJob is a Job of somebody else.
func emptyJob(namespace, name string) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "a", Image: "b"}},
		}}},
	}
}

// zero is an amount of nothing.
func zero() *resource.Quantity { return resource.NewQuantity(0, resource.DecimalSI) }

// withoutDryRuns are the writes but those that ask whether the StatefulSet could be changed.
func withoutDryRuns(writes []string) []string {
	return slices.DeleteFunc(slices.Clone(writes), func(write string) bool { return strings.Contains(write, "/statefulsets/") })
}
