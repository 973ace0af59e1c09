package headscale

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/internal/resources"
)

// Reasons for which a container waits, as the kubelet calls them.
var (
	imageReasons = []string{"ErrImageNeverPull", "ErrImagePull", "ImageInspectError", "ImagePullBackOff", "InvalidImageName", "RegistryUnavailable"}
	startReasons = []string{"CreateContainerConfigError", "CreateContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError", "RunContainerError"}
)

// reasonCrashLoop is why a container waits that ended too often, as the kubelet
// calls it.
const reasonCrashLoop = "CrashLoopBackOff"

// reasonInitializing is why a container waits for those that start first, as the kubelet calls it.
const reasonInitializing = "PodInitializing"

// stalledReasons are those of imageReasons that stay until somebody does something.
var stalledReasons = []string{"ErrImageNeverPull", "InvalidImageName"}

// reasonReadinessGates is why the kubelet calls a pod unready whose containers are
// ready, where something outside the pod has a say.
const reasonReadinessGates = "ReadinessGatesNotReady"

// startGrace is how long something that belongs to a start may last before it counts as
// trouble.
const startGrace = 30 * time.Second

// startLimit is how long Headscale may take to start: 300 tries of the startup probe, 2 s
// apart.
const startLimit = 10 * time.Minute

// stateOfHeadscale judges the pod by Headscale's container, and by those that it waits for: trouble
// with the API Key Manager does not keep a Headscale from working that has started.
func stateOfHeadscale(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim, now time.Time) status.Condition {
	container := containerStatus(pod, resources.ContainerHeadscale)
	printed := failedGate(pod)
	switch {
	case nodeLost(pod):
		return status.False(v1beta1.ReasonNodeLost, fmt.Sprintf(
			"Node %[2]s is not reporting to the API server, so the state of Headscale in pod %[1]s is unknown; kubectl describe node %[2]s tells more. "+
				"If the node is gone for good, kubectl delete pod %[1]s --force lets Kubernetes create the pod on another node", pod.Name, pod.Spec.NodeName))
	case !pod.DeletionTimestamp.IsZero():
		return status.False(v1beta1.ReasonProgressing, fmt.Sprintf("Pod %s is terminating", pod.Name))
	case pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "":
		return status.False(v1beta1.ReasonPodFailed, fmt.Sprintf(
			"Pod %s was evicted or rejected by its node: %s", pod.Name, said(pod.Status.Reason, pod.Status.Message)))
	case container == nil:
		return stateOfPending(pod, claim, now)
	case printed != "":
		return stateOfRestore(pod, printed)
	case atGate(pod):
		return status.False(v1beta1.ReasonProgressing, fmt.Sprintf("Litestream in pod %[1]s is looking for a database to restore; kubectl logs %[1]s -c %[2]s tells more if this lasts", pod.Name, resources.ContainerRestore))
	case container.Ready:
		return status.True(v1beta1.ReasonAvailable, fmt.Sprintf("Headscale in pod %s is ready", pod.Name))
	}
	if trouble := cmp.Or(stateOfInit(pod, container), stallOf(stateOfContainer(pod.Name, "Headscale", container), container)); trouble != nil {
		return *trouble
	}
	if container.State.Running != nil && container.Started != nil && *container.Started {
		return stateOfUnready(pod, container, now)
	}
	return status.False(v1beta1.ReasonProgressing, fmt.Sprintf(
		"Pod %[1]s is not ready; kubectl describe pod %[1]s and kubectl logs %[1]s -c %[2]s tell why if this lasts", pod.Name, container.Name))
}

// stateOfInit says what is wrong with the containers that Headscale's container waits for, or nil.
func stateOfInit(pod *corev1.Pod, headscale *corev1.ContainerStatus) *status.Condition {
	if waiting := headscale.State.Waiting; waiting == nil || waiting.Reason != reasonInitializing {
		return nil
	}
	for _, name := range []string{resources.ContainerVolume, resources.ContainerRestore, resources.ContainerIdentity, resources.ContainerBackup} {
		container := containerStatus(pod, name)
		if container == nil || container.State.Terminated != nil && container.State.Terminated.ExitCode == 0 {
			continue
		}
		trouble := stateOfContainer(pod.Name, "Litestream", container)
		switch name {
		case resources.ContainerVolume:
			trouble = stateOfRestorer(pod, "The check of the data volume", container)
		case resources.ContainerIdentity:
			trouble = stateOfRestorer(pod, "The restore of the private keys", container)
		}
		if trouble != nil {
			return stallOf(trouble, container)
		}
	}
	return nil
}

// stallOf says of what is wrong with a container that it stays so, where it does.
func stallOf(trouble *status.Condition, container *corev1.ContainerStatus) *status.Condition {
	waiting := container.State.Waiting
	if trouble == nil || waiting == nil || !slices.Contains(stalledReasons, waiting.Reason) {
		return trouble
	}
	stalled := trouble.Stall()
	return &stalled
}

// stateOfUnready judges a Headscale that has started and is not ready. One that was ready
// before, in the same run, fails its health check. Of one that was not, the kubelet may
// not have asked yet.
func stateOfUnready(pod *corev1.Pod, container *corev1.ContainerStatus, now time.Time) status.Condition {
	unanswered := status.False(v1beta1.ReasonNotAnswering, fmt.Sprintf(
		"Headscale in pod %[1]s runs and has not passed its health check; kubectl logs %[1]s -c %[2]s tells why", pod.Name, container.Name))
	began := container.State.Running.StartedAt.Time
	if ready := podCondition(pod, corev1.ContainersReady); ready != nil && ready.LastTransitionTime.After(began) {
		return unanswered
	}
	return status.Tolerate(unanswered, began, startLimit, now)
}

// nodeLost reports whether the node of a pod is cut off. Nobody knows how the containers
// are then, which Kubernetes says by calling a pod unready whose containers were ready
// when they were last heard of.
func nodeLost(pod *corev1.Pod) bool {
	ready, containers := podCondition(pod, corev1.PodReady), podCondition(pod, corev1.ContainersReady)
	return ready != nil && ready.Status == corev1.ConditionFalse && ready.Reason != reasonReadinessGates &&
		containers != nil && containers.Status == corev1.ConditionTrue
}

// stateOfPending judges a pod whose containers no node has begun to make.
func stateOfPending(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim, now time.Time) status.Condition {
	scheduled := podCondition(pod, corev1.PodScheduled)
	switch {
	case claim != nil && claim.Status.Phase == corev1.ClaimLost:
		return status.False(v1beta1.ReasonVolumePending, fmt.Sprintf(
			"The volume of claim %[1]s is lost, and Headscale's data with it, unless the volume can be brought back; kubectl describe pvc %[1]s tells more", claim.Name)).Stall()
	case claim != nil && claim.Status.Phase != corev1.ClaimBound:
		return status.Tolerate(status.False(v1beta1.ReasonVolumePending, fmt.Sprintf(
			"Pod %s waits for its volume: claim %[2]s is not bound; check that spec.persistent_volume_claim names a StorageClass that provisions volumes; kubectl describe pvc %[2]s tells more", pod.Name, claim.Name)+quote(scheduled)),
			status.Latest(pod.CreationTimestamp.Time, claim.CreationTimestamp.Time), startGrace, now)
	case scheduled != nil && scheduled.Status == corev1.ConditionFalse && scheduled.Reason == corev1.PodReasonUnschedulable:
		return status.Tolerate(status.False(v1beta1.ReasonUnschedulable, fmt.Sprintf("No node accepts pod %s", pod.Name)+quote(scheduled)),
			scheduled.LastTransitionTime.Time, startGrace, now)
	default:
		return status.False(v1beta1.ReasonProgressing, fmt.Sprintf(
			"Pod %[1]s is being started; kubectl describe pod %[1]s tells why if this lasts", pod.Name))
	}
}

// failing is a container that does not run.
func failing(reason, message string) *status.Condition {
	condition := status.False(reason, message)
	return &condition
}

// stateOfContainer says what is wrong with a container, or nil while nothing is
// known to be.
func stateOfContainer(pod, program string, container *corev1.ContainerStatus) *status.Condition {
	waiting := container.State.Waiting
	switch {
	case waiting != nil && slices.Contains(imageReasons, waiting.Reason):
		return failing(v1beta1.ReasonImagePullFailed, fmt.Sprintf(
			"%s cannot start: failed to pull image %s: %s", program, container.Image, said(waiting.Reason, waiting.Message)))
	case waiting != nil && slices.Contains(startReasons, waiting.Reason):
		return failing(v1beta1.ReasonCannotStart, fmt.Sprintf(
			"The container of %s in pod %s cannot be started: %s", program, pod, said(waiting.Reason, waiting.Message)))
	case container.State.Terminated != nil:
		return crash(pod, program, container.Name, container.State.Terminated)
	case container.LastTerminationState.Terminated != nil && !steady(container):
		return crash(pod, program, container.Name, container.LastTerminationState.Terminated)
	case waiting != nil && waiting.Reason == reasonCrashLoop:
		return crash(pod, program, container.Name, &corev1.ContainerStateTerminated{})
	default:
		return nil
	}
}

// steady reports whether a container that ended before is up again.
func steady(container *corev1.ContainerStatus) bool {
	return container.State.Running != nil && container.Ready
}

// crash says why a container ended.
func crash(pod, program, container string, end *corev1.ContainerStateTerminated) *status.Condition {
	words := redact.LastWords(end.Message)
	switch {
	case end.Reason == "OOMKilled":
		words = "it was killed because it used more memory than its limit allows: raise the limit"
	case words == "":
		words = fmt.Sprintf("it exited with code %d and printed nothing; kubectl logs %s -c %s --previous may tell more", end.ExitCode, pod, container)
	}
	if hint := resources.ConnectionHint(end.Message); hint != "" {
		words += ". " + hint
	}
	return failing(v1beta1.ReasonCrashing, fmt.Sprintf("%s in pod %s is crash-looping: %s", program, pod, words))
}

// troubleOfManager says why the API Key Manager's container does not run, or "".
func troubleOfManager(pod *corev1.Pod) string {
	if pod == nil || !pod.DeletionTimestamp.IsZero() {
		return ""
	}
	container := containerStatus(pod, resources.ContainerManager)
	if container == nil {
		return ""
	}
	trouble := stateOfContainer(pod.Name, "The API Key Manager", container)
	if trouble == nil {
		return ""
	}
	return trouble.Message
}

// containerStatus finds the state of a container, which may be one of those that
// start first and go on running.
func containerStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// podCondition finds a condition of a pod, or nil.
func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// maxQuote is how much of a message of Kubernetes is quoted, in bytes.
const maxQuote = 1024

// quote is what a condition says, as the end of a sentence.
func quote(condition *corev1.PodCondition) string {
	if condition == nil || condition.Message == "" {
		return ""
	}
	return ": " + redact.Line(redact.Secrets(condition.Message), maxQuote)
}

// said is a reason of the kubelet with its message, if there is one.
func said(reason, message string) string {
	if message == "" {
		return reason
	}
	return reason + ": " + redact.Line(redact.Secrets(message), maxQuote)
}
