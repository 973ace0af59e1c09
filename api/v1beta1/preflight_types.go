package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PreflightMode says whether a change is checked by a preflight before it replaces a pod that is ready.
//
// +kubebuilder:validation:MaxLength=16
type PreflightMode string

// The modes of spec.preflight.
const (
	// PreflightAlways applies a change only after its preflight passed.
	PreflightAlways PreflightMode = "Always"
	// PreflightWhenPossible applies a change anyway whose preflight is inconclusive for too long.
	PreflightWhenPossible PreflightMode = "WhenPossible"
	// PreflightNever applies every change without a preflight.
	PreflightNever PreflightMode = "Never"
)

// PreflightOutcome is the outcome of the preflight of a change.
//
// +kubebuilder:validation:MaxLength=16
type PreflightOutcome string

// The outcomes of a preflight.
const (
	// PreflightRunning says that the first attempt has not ended.
	PreflightRunning PreflightOutcome = "Running"
	// PreflightPassed says that Headscale started with the change.
	PreflightPassed PreflightOutcome = "Passed"
	// PreflightRefused says that Headscale does not start with the change.
	PreflightRefused PreflightOutcome = "Refused"
	// PreflightUnknown says that the last attempt was inconclusive.
	PreflightUnknown PreflightOutcome = "Unknown"
	// PreflightSkipped says that every attempt was inconclusive, and that the change was applied anyway.
	PreflightSkipped PreflightOutcome = "Skipped"
)

// PreflightStatus describes the preflight of a change.
type PreflightStatus struct {
	// Generation of the resource that was checked by the preflight.
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// Digest of what was checked by the preflight: the pod with its config and what it refers to.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Digest string `json:"digest,omitempty"`
	// Running, Passed, Refused, Unknown or Skipped.
	// +optional
	Outcome PreflightOutcome `json:"outcome,omitempty"`
	// Reason of the condition Ready while the change is held up.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// Message from Headscale, Litestream or Kubernetes.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Message string `json:"message,omitempty"`
	// When the first attempt began.
	// +optional
	StartedAt *metav1.Time `json:"started_at,omitempty"`
	// When the next attempt begins.
	// +optional
	RetryAt *metav1.Time `json:"retry_at,omitempty"`
	// How many attempts have ended without a start of Headscale.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`
}
