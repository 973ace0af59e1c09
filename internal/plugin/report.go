package plugin

import (
	"fmt"
	"math"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/internal/resources"
)

// managerContainer is the container of the pod in which the API Key Manager runs.
const managerContainer = resources.ContainerManager

// statusReport is the state of a Headscale.
type statusReport struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Version is the version of Headscale that is asked for.
	Version string `json:"version"`
	// Ready is whether Headscale runs with the desired configuration and, if its key is managed,
	// the Secret holds a valid key.
	Ready bool `json:"ready"`
	// Reason is why, as the condition Ready says it.
	Reason string `json:"reason"`
	// Problem says what is wrong in one line; "" where nothing is.
	Problem string `json:"problem"`
	// Pod is Headscale's pod; null where there is none, or it may not be read.
	Pod *podReport `json:"pod"`
	// Key is what is known of the API key.
	Key keyReport `json:"key"`
	// Conditions are the conditions of the resource.
	Conditions []metav1.Condition `json:"conditions"`
	// Unread says what could not be read, because permissions are missing.
	Unread []string `json:"unread,omitempty"`

	podName      string
	podForbidden bool
}

// podReport is how a pod is.
type podReport struct {
	Name       string            `json:"name"`
	Phase      string            `json:"phase"`
	Ready      bool              `json:"ready"`
	CreatedAt  metav1.Time       `json:"createdAt"`
	Containers []containerReport `json:"containers"`
}

// containerReport is how a container is.
type containerReport struct {
	Name     string `json:"name"`
	Ready    bool   `json:"ready"`
	Restarts int32  `json:"restarts"`
	// State is Running, or why the container waits or ended, as the kubelet says it.
	State string `json:"state"`

	// done says that it was an init container, and has completed.
	done bool
}

// podView is what could be read of a pod: nil where there is none, or nothing where it
// may not be read.
type podView struct {
	pod       *corev1.Pod
	forbidden bool
}

// describe returns the state of a Headscale at some time.
func describe(headscale *v1beta1.Headscale, pod podView, secret secretView, now time.Time) statusReport {
	report := statusReport{
		Namespace: headscale.Namespace, Name: headscale.Name, Version: headscale.Spec.Version,
		Key: describeKey(headscale, secret, now), Pod: describePod(pod.pod),
		Conditions: headscale.Status.Conditions, podName: resources.PodName(headscale), podForbidden: pod.forbidden,
	}
	if report.Conditions == nil {
		report.Conditions = []metav1.Condition{}
	}
	if pod.forbidden {
		report.Unread = append(report.Unread, "pod "+resources.PodName(headscale))
	}
	if secret.forbidden {
		report.Unread = append(report.Unread, "Secret "+report.Key.Secret)
	}
	ready := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionReady)
	if ready != nil {
		report.Reason = ready.Reason
	}
	report.Ready = ready != nil && ready.Status == metav1.ConditionTrue && seen(headscale) && headscale.DeletionTimestamp.IsZero() &&
		(report.Key.usable() || !report.Key.Managed)
	report.Problem = problem(headscale, ready, &report.Key)
	return report
}

// seen reports whether the operator has observed the present spec.
func seen(headscale *v1beta1.Headscale) bool {
	return headscale.Status.ObservedGeneration >= headscale.Generation
}

// whereOperator says how to check whether the operator runs.
const whereOperator = "kubectl get pods -A -l app.kubernetes.io/name=headscale-operator shows whether it runs"

// problem says in one line what is wrong with a Headscale, or "". The operator's conditions come
// first, unless they are outdated or the time has changed the state since.
func problem(headscale *v1beta1.Headscale, ready *metav1.Condition, key *keyReport) string {
	switch {
	case !headscale.DeletionTimestamp.IsZero():
		return "it is being deleted"
	case ready == nil:
		return "the operator has not observed it yet; " + whereOperator
	case !seen(headscale):
		return "the operator has not observed the last change yet; " + whereOperator
	case ready.Status != metav1.ConditionTrue:
		return oneLine(ready.Reason + ": " + ready.Message)
	case key.Managed && !key.usable():
		return oneLine(key.complaint(headscale))
	case ready.Reason != v1beta1.ReasonReady:
		return oneLine(ready.Reason + ": " + ready.Message)
	case key.State == keystate.Overdue:
		return fmt.Sprintf("the API key should have been replaced at %s; kubectl logs -n %s %s -c %s tells why",
			instant(key.NextRotation.Time), headscale.Namespace, resources.PodName(headscale), managerContainer)
	}
	if _, warning, found := strings.Cut(ready.Message, v1beta1.WarningsIntro); found {
		return oneLine(warning)
	}
	return ""
}

// describePod returns the state of a pod, or nil if there is none.
func describePod(pod *corev1.Pod) *podReport {
	if pod == nil {
		return nil
	}
	report := &podReport{Name: pod.Name, Phase: string(pod.Status.Phase), CreatedAt: pod.CreationTimestamp, Containers: []containerReport{}}
	if !pod.DeletionTimestamp.IsZero() {
		report.Phase = "Terminating"
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			report.Ready = condition.Status == corev1.ConditionTrue
		}
	}
	for i := range pod.Status.InitContainerStatuses {
		status := &pod.Status.InitContainerStatuses[i]
		container := describeContainer(status)
		container.done = status.State.Terminated != nil && status.State.Terminated.ExitCode == 0
		report.Containers = append(report.Containers, container)
	}
	for i := range pod.Status.ContainerStatuses {
		report.Containers = append(report.Containers, describeContainer(&pod.Status.ContainerStatuses[i]))
	}
	return report
}

// describeContainer returns the state of a container.
func describeContainer(status *corev1.ContainerStatus) containerReport {
	return containerReport{Name: status.Name, Ready: status.Ready, Restarts: status.RestartCount, State: stateOf(&status.State)}
}

// stateOf is what the kubelet says of a container in a word.
func stateOf(state *corev1.ContainerState) string {
	switch {
	case state.Running != nil:
		return "Running"
	case state.Waiting != nil && state.Waiting.Reason != "":
		return state.Waiting.Reason
	case state.Terminated != nil && state.Terminated.Reason != "":
		return state.Terminated.Reason
	case state.Terminated != nil:
		return "Terminated"
	default:
		return "Waiting"
	}
}

// oneLine is a text on one line without anything that could change what a terminal shows.
func oneLine(text string) string { return redact.Line(text, math.MaxInt) }
