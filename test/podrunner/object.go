package podrunner

import (
	"context"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/process"
)

// terminationMessage is how much of a container's log the kubelet keeps, in bytes.
const terminationMessage = 2048

// show makes the Pod object say what is true of the pod. One that ended makes way, and one that
// somebody deleted is made again.
func (r *Runner) show(ctx context.Context, set *appsv1.StatefulSet) error {
	pod := r.current()
	if pod == nil {
		return r.hide(ctx, r.podKey())
	}
	if set == nil {
		return nil
	}
	return pod.show(ctx, metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet")))
}

// podKey is the name of the StatefulSet's pod.
func (r *Runner) podKey() client.ObjectKey {
	return client.ObjectKey{Namespace: r.options.StatefulSet.Namespace, Name: r.options.StatefulSet.Name + "-0"}
}

// hide deletes a Pod object, if there is one.
func (r *Runner) hide(ctx context.Context, pod client.ObjectKey) error {
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
	return client.IgnoreNotFound(r.options.Client.Delete(ctx, object, client.GracePeriodSeconds(0)))
}

// show makes the Pod object, which has an owner, say what is true of the pod. The object is what
// a controller makes of the template; that of another revision makes way.
func (p *pod) show(ctx context.Context, owner *metav1.OwnerReference) error {
	admin := p.runner.options.Client
	made := &corev1.Pod{ObjectMeta: *p.template.ObjectMeta.DeepCopy(), Spec: *p.template.Spec.DeepCopy()}
	made.Namespace, made.Name, made.OwnerReferences = p.namespace, p.name, []metav1.OwnerReference{*owner}
	metav1.SetMetaDataLabel(&made.ObjectMeta, appsv1.ControllerRevisionHashLabelKey, p.revision)
	shown := &corev1.Pod{}
	err := admin.Get(ctx, client.ObjectKeyFromObject(made), shown)
	switch {
	case apierrors.IsNotFound(err):
		shown = made
		err = admin.Create(ctx, shown)
	case err == nil && shown.Labels[appsv1.ControllerRevisionHashLabelKey] != p.revision:
		return p.runner.hide(ctx, client.ObjectKeyFromObject(made))
	}
	before := shown.DeepCopy()
	p.describe(&shown.Status)
	if err != nil || equality.Semantic.DeepEqual(before.Status, shown.Status) {
		return err
	}
	return client.IgnoreNotFound(admin.Status().Patch(ctx, shown, client.MergeFrom(before)))
}

// describe says what the kubelet would of the pod.
func (p *pod) describe(status *corev1.PodStatus) {
	ready := corev1.ConditionFalse
	if p.ready() {
		ready = corev1.ConditionTrue
	}
	if len(status.Conditions) == 0 || status.Conditions[0].Status != ready {
		status.Conditions = nil
		for _, kind := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
			condition := corev1.PodCondition{Type: kind, Status: ready, LastTransitionTime: metav1.Now().Rfc3339Copy()}
			status.Conditions = append(status.Conditions, condition)
		}
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	status.Phase, status.PodIP, status.InitContainerStatuses, status.ContainerStatuses = corev1.PodPending, p.runner.ports.ip, nil, nil
	for _, c := range p.inits {
		status.InitContainerStatuses = append(status.InitContainerStatuses, c.status())
	}
	if c := p.noImage; c != nil && len(p.containers) == 0 {
		status.ContainerStatuses = []corev1.ContainerStatus{{Name: c.Name, Image: c.Image, State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "there is no program for this image"},
		}}}
	}
	for _, c := range p.containers {
		status.Phase = corev1.PodRunning
		status.ContainerStatuses = append(status.ContainerStatuses, c.status())
	}
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
	status.LastTerminationState.Terminated = c.ended
	switch {
	case running:
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.began).Rfc3339Copy()}
	case c.ended != nil && (c.pod.runsOnce() || c.once && c.ended.ExitCode == 0):
		status.State.Terminated = c.ended
	case c.ended != nil:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
	case len(c.pod.template.Spec.InitContainers) > 0:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	default:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	}
	return status
}

// noteEnd notes how a process ended that was not told to, with its last words.
func (c *container) noteEnd(p *process.Process) {
	log := p.Log().String()
	end := &corev1.ContainerStateTerminated{
		ExitCode: int32(p.ExitCode()), Reason: "Completed",
		StartedAt: metav1.NewTime(c.began).Rfc3339Copy(), FinishedAt: metav1.Now().Rfc3339Copy(),
	}
	if end.ExitCode != 0 {
		end.Reason, end.Message = "Error", log[max(0, len(log)-terminationMessage):]
	}
	if words, err := os.ReadFile(c.lastWords()); err == nil {
		end.Message = string(words)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.ended = end
}

// writeStatus writes the status when it has changed.
func (r *Runner) writeStatus(ctx context.Context, set *appsv1.StatefulSet, revision string) error {
	before := set.DeepCopy()
	r.describe(&set.Status, r.current(), revision)
	set.Status.ObservedGeneration = set.Generation
	if equality.Semantic.DeepEqual(before.Status, set.Status) {
		return nil
	}
	return client.IgnoreNotFound(r.options.Client.Status().Patch(ctx, set, client.MergeFrom(before)))
}

// describe says what the StatefulSet controller would of the pod, which may be nil. The current
// revision becomes the update revision when the new pod is ready.
func (r *Runner) describe(status *appsv1.StatefulSetStatus, pod *pod, revision string) {
	one := func(is bool) int32 {
		if is {
			return 1
		}
		return 0
	}
	ready := pod != nil && pod.ready()
	if ready {
		r.readyRevision = pod.revision
	}
	if r.readyRevision == "" {
		r.readyRevision = revision
	}
	status.CurrentRevision, status.UpdateRevision = r.readyRevision, revision
	status.Replicas, status.ReadyReplicas, status.AvailableReplicas = one(pod != nil), one(ready), one(ready)
	status.UpdatedReplicas = one(pod != nil && pod.revision == revision)
	status.CurrentReplicas = one(pod != nil && pod.revision == r.readyRevision)
}
