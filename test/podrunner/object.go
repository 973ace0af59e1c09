package podrunner

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/process"
)

const (
	// terminationMessage is how much of a container's log the kubelet keeps, in bytes.
	terminationMessage = 2048
	// hideTimeout ends a deletion of the Pod object that hangs.
	hideTimeout = 5 * time.Second
)

// show makes the Pod object say what is true of the pod. One that ended makes way.
func (r *Runner) show(ctx context.Context, set *appsv1.StatefulSet) error {
	r.mutex.Lock()
	pod := r.pod
	r.mutex.Unlock()
	if r.shown != nil && (pod == nil || pod.revision != r.shown.Labels[appsv1.ControllerRevisionHashLabelKey]) {
		r.hide(ctx)
	}
	if pod == nil || set == nil {
		return nil
	}
	if r.shown == nil {
		made := pod.object(set)
		// One that an earlier runner left is in the way.
		if err := client.IgnoreNotFound(r.options.Client.Delete(ctx, made.DeepCopy(), client.GracePeriodSeconds(0))); err != nil {
			return err
		}
		if err := r.options.Client.Create(ctx, made); err != nil {
			return err
		}
		r.shown = made
	}
	before := r.shown.DeepCopy()
	pod.describe(&r.shown.Status)
	if equality.Semantic.DeepEqual(before.Status, r.shown.Status) {
		return nil
	}
	switch err := r.options.Client.Status().Patch(ctx, r.shown, client.MergeFrom(before)); {
	case apierrors.IsNotFound(err):
		// Somebody deleted it, and it is made again.
		r.shown = nil
	case err != nil:
		r.shown = before
		return err
	}
	return nil
}

// hide deletes the Pod object.
func (r *Runner) hide(ctx context.Context) {
	if r.shown == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hideTimeout)
	defer cancel()
	if err := client.IgnoreNotFound(r.options.Client.Delete(ctx, r.shown, client.GracePeriodSeconds(0))); err != nil {
		r.report(err)
	}
	r.shown = nil
}

// object is what the StatefulSet controller makes of the template.
func (p *pod) object(set *appsv1.StatefulSet) *corev1.Pod {
	made := &corev1.Pod{ObjectMeta: *p.template.ObjectMeta.DeepCopy(), Spec: *p.template.Spec.DeepCopy()}
	made.Namespace, made.Name = p.namespace, p.name
	made.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
	if made.Labels == nil {
		made.Labels = map[string]string{}
	}
	made.Labels[appsv1.ControllerRevisionHashLabelKey] = p.revision
	for i := range p.claims {
		made.Spec.Volumes = append(made.Spec.Volumes, corev1.Volume{Name: p.claims[i].Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: p.claims[i].Name + "-" + p.name},
		}})
	}
	return made
}

// describe says what the kubelet would of the pod.
func (p *pod) describe(status *corev1.PodStatus) {
	ready := corev1.ConditionFalse
	if p.ready() {
		ready = corev1.ConditionTrue
	}
	for _, kind := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		setPodCondition(status, kind, ready)
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	status.Phase, status.ContainerStatuses = corev1.PodPending, nil
	for _, c := range p.containers {
		status.Phase = corev1.PodRunning
		status.ContainerStatuses = append(status.ContainerStatuses, c.status())
	}
}

// setPodCondition sets a condition of a pod.
func setPodCondition(status *corev1.PodStatus, kind corev1.PodConditionType, to corev1.ConditionStatus) {
	for i := range status.Conditions {
		if condition := &status.Conditions[i]; condition.Type == kind {
			if condition.Status != to {
				condition.Status, condition.LastTransitionTime = to, metav1.Now().Rfc3339Copy()
			}
			return
		}
	}
	status.Conditions = append(status.Conditions, corev1.PodCondition{Type: kind, Status: to, LastTransitionTime: metav1.Now().Rfc3339Copy()})
}

// status is what the kubelet would say of the container.
func (c *container) status() corev1.ContainerStatus {
	running, ready := c.running() != nil, c.ready()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	status := corev1.ContainerStatus{
		Name: c.template.Name, Image: c.template.Image, ImageID: c.program,
		Ready: ready, Started: &ready, RestartCount: max(c.starts-1, 0),
	}
	if c.ended != nil {
		status.LastTerminationState.Terminated = c.ended
	}
	switch {
	case running:
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.began).Rfc3339Copy()}
	case c.ended != nil:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
	default:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	}
	return status
}

// noteEnd notes how a process ended that was not told to, with its last words.
func (c *container) noteEnd(p *process.Process) {
	log := c.log.String()
	end := &corev1.ContainerStateTerminated{
		ExitCode: int32(p.ExitCode()), Reason: "Completed",
		StartedAt: metav1.NewTime(c.began).Rfc3339Copy(), FinishedAt: metav1.Now().Rfc3339Copy(),
	}
	if end.ExitCode != 0 {
		end.Reason, end.Message = "Error", log[max(0, len(log)-terminationMessage):]
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.ended = end
}
