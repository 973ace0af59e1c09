package keystate

import (
	"encoding/json"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// RequestedSince is when a rotation was last requested on a Secret: the annotation may say
// anything, but the API server records which manager wrote it and when.
func RequestedSince(secret metav1.Object) time.Time {
	since := secret.GetCreationTimestamp().Time
	for _, entry := range secret.GetManagedFields() {
		if entry.Time != nil && entry.Time.After(since) && ownsRequest(entry) {
			since = entry.Time.Time
		}
	}
	return since
}

// requestFields are the fields that are kept of a manager that wrote a request.
const requestFields = `{"f:metadata":{"f:annotations":{"f:` + v1beta1.AnnotationRotateRequestedAt + `":{}}}}`

// StripManagedFields removes from a Secret the managed fields that RequestedSince does not
// read. They are most of what a cache holds of a Secret's metadata.
func StripManagedFields(secret metav1.Object) {
	var kept []metav1.ManagedFieldsEntry
	for _, entry := range secret.GetManagedFields() {
		if ownsRequest(entry) {
			kept = append(kept, metav1.ManagedFieldsEntry{Manager: entry.Manager, Time: entry.Time, FieldsV1: metav1.NewFieldsV1(requestFields)})
		}
	}
	secret.SetManagedFields(kept)
}

// ownsRequest reports whether a manager owns the annotation that requests a rotation.
func ownsRequest(entry metav1.ManagedFieldsEntry) bool {
	if entry.FieldsV1 == nil {
		return false
	}
	var fields struct {
		Metadata struct {
			Annotations map[string]json.RawMessage `json:"f:annotations"`
		} `json:"f:metadata"`
	}
	if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil {
		return false
	}
	_, owns := fields.Metadata.Annotations["f:"+v1beta1.AnnotationRotateRequestedAt]
	return owns
}
