package plugin

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// now is the time of the table tests.
var now = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// at is a time before (or after) now, as the API has them.
func at(offset time.Duration) metav1.Time { return metav1.Time{Time: now.Add(offset)} }

// day is what a key's life is counted in.
const day = 24 * time.Hour

// headscaleNamed is a Headscale with a key that is three days old, as the operator has
// seen it.
func headscaleNamed(name string, changes ...func(*v1beta1.Headscale)) *v1beta1.Headscale {
	expiration, next := at(87*day), at(7*day)
	headscale := &v1beta1.Headscale{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "0123", Generation: 2},
		Spec:       v1beta1.HeadscaleSpec{Version: "v0.29.3"},
		Status: v1beta1.HeadscaleStatus{
			ObservedGeneration: 2,
			APIKey:             &v1beta1.APIKeyStatus{SecretName: v1beta1.DefaultSecretName, KeyPrefix: "9ac3e6a37ae0", Expiration: &expiration, NextRotation: &next},
			Conditions: []metav1.Condition{
				condition(v1beta1.ConditionReady, true, v1beta1.ReasonReady, "Headscale is running with the desired configuration"),
				condition(v1beta1.ConditionAvailable, true, v1beta1.ReasonAvailable, "Headscale in pod "+name+"-0 is ready"),
				condition(v1beta1.ConditionAPIKeyReady, true, v1beta1.ReasonKeyValid, "The API key in Secret headscale-api-key is valid until 2027-02-22T12:00:00Z"),
				condition(v1beta1.ConditionProgressing, false, v1beta1.ReasonComplete, "Reconciliation complete"),
			},
		},
	}
	for _, change := range changes {
		change(headscale)
	}
	return headscale
}

// condition is a condition of generation 2 that has been as it is for three days.
func condition(kind string, status bool, reason, message string) metav1.Condition {
	is := metav1.ConditionFalse
	if status {
		is = metav1.ConditionTrue
	}
	return metav1.Condition{Type: kind, Status: is, Reason: reason, Message: message, ObservedGeneration: 2, LastTransitionTime: at(-3 * day)}
}

// says changes conditions of a Headscale.
func says(conditions ...metav1.Condition) func(*v1beta1.Headscale) {
	return func(headscale *v1beta1.Headscale) {
		for _, next := range conditions {
			for i := range headscale.Status.Conditions {
				if headscale.Status.Conditions[i].Type == next.Type {
					headscale.Status.Conditions[i] = next
				}
			}
		}
	}
}

// unmanaged turns the API Key Manager of a Headscale off.
func unmanaged(headscale *v1beta1.Headscale) {
	no := false
	headscale.Spec.APIKey.AutoManage = &no
	headscale.Status.APIKey = nil
	says(condition(v1beta1.ConditionAPIKeyReady, true, v1beta1.ReasonNotManaged, "No API key is managed"))(headscale)
}

// secretOf is what may be read of a Secret of the API Key Manager, with annotations that
// are changed; "" takes one away.
func secretOf(changes map[string]string) secretView {
	notes := map[string]string{
		v1beta1.AnnotationKeyPrefix:  "9ac3e6a37ae0",
		v1beta1.AnnotationCreatedAt:  now.Add(-3 * day).Format(time.RFC3339),
		v1beta1.AnnotationExpiration: now.Add(87 * day).Format(time.RFC3339Nano),
	}
	for name, value := range changes {
		notes[name] = value
		if value == "" {
			delete(notes, name)
		}
	}
	return secretView{metadata: &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: v1beta1.DefaultSecretName, Annotations: notes,
		Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
	}}}
}

// foreignSecret is a Secret of somebody else.
func foreignSecret() secretView {
	view := secretOf(nil)
	view.metadata.Labels = nil
	return view
}

// podOf is the pod of a Headscale, with its containers as they are given.
func podOf(name string, containers ...corev1.ContainerStatus) podView {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name + "-0", CreationTimestamp: at(-4 * day)},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: containers},
	}
	return podView{pod: pod}
}

// runs is a container that runs.
func runs(name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

// waits is a container that does not run, for a reason of the kubelet.
func waits(name, reason string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, RestartCount: 4, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
}
