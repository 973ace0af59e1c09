package headscale

import (
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// failingAfter is how long the API Key Manager may take for something that takes it less
// than a second when all is well. It is the pause between two of its attempts at most.
const failingAfter = time.Minute

// keyIsLate is when a key that is missing counts as one that cannot be made; zero: not
// while the API Key Manager is not at work.
func keyIsLate(p *pass, available state) time.Time {
	working, atWork := atWorkSince(p, available)
	if !atWork {
		return time.Time{}
	}
	if wasFailing(p) {
		return p.now
	}
	missing := p.now
	if reasonOf(&p.headscale.Status, v1beta1.ConditionAPIKeyReady) == v1beta1.ReasonKeyPending {
		missing = falseSince(p, v1beta1.ConditionAPIKeyReady)
	}
	asked, _ := oldestPending(p.secret, time.Time{})
	return latest(missing, asked, working).Add(failingAfter)
}

// unfinished is when what the ledger says of a rotation counts as one that fails, and what
// it says; zero: there is nothing to say, or the API Key Manager is not at work.
func unfinished(p *pass, available state) (time.Time, string) {
	working, atWork := atWorkSince(p, available)
	begun, work := oldestWork(p.secret)
	switch {
	case !atWork || begun.IsZero():
		return time.Time{}, ""
	case wasFailing(p) && !begun.After(p.now):
		// The mark of a failed attempt makes way for that of the next one.
		return p.now, work
	default:
		return latest(begun, working).Add(failingAfter), work
	}
}

// wasFailing tells whether that was the last that was said of the key.
func wasFailing(p *pass) bool {
	return reasonOf(&p.headscale.Status, v1beta1.ConditionAPIKeyReady) == v1beta1.ReasonRotationFailing
}

// atWorkSince is since when Headscale answers and the API Key Manager runs.
func atWorkSince(p *pass, available state) (time.Time, bool) {
	if !available.ok || p.pod == nil {
		return time.Time{}, false
	}
	manager := containerStatus(p.pod, resources.ContainerManager)
	if manager == nil || manager.State.Running == nil {
		return time.Time{}, false
	}
	return latest(trueSince(p, v1beta1.ConditionAvailable), manager.State.Running.StartedAt.Time), true
}

// oldestWork is what has been begun first of all that the ledger says is not done, and
// when; zero: everything is done.
func oldestWork(secret *metav1.PartialObjectMetadata) (first time.Time, work string) {
	notes := secret.Annotations
	consider := func(begun time.Time, what string) {
		if !begun.IsZero() && (first.IsZero() || begun.Before(first)) {
			first, work = begun, what
		}
	}
	created, _ := time.Parse(time.RFC3339, notes[v1beta1.AnnotationCreatedAt])
	if asked, found := oldestPending(secret, created); found {
		consider(asked, "A new API key has been asked for since "+text(asked)+" and has not come")
	}
	if request := notes[v1beta1.AnnotationRotateRequestedAt]; request != "" && request != notes[v1beta1.AnnotationRotateHandled] {
		requested := requestedSince(secret)
		consider(requested, fmt.Sprintf("The new API key that was requested at %s (%.64q) has not come", text(requested), request))
	}
	for prefix, retires := range v1beta1.LedgerEntries(notes[v1beta1.AnnotationRetiring]) {
		consider(retires, "The API key "+prefix+" was replaced, and Headscale should refuse it since "+text(retires))
	}
	return first, work
}

// oldestPending is when the first key was asked for that has not come, of those that were
// asked for after a key came.
func oldestPending(secret *metav1.PartialObjectMetadata, came time.Time) (first time.Time, found bool) {
	if secret == nil {
		return first, false
	}
	for _, written := range v1beta1.LedgerEntries(secret.Annotations[v1beta1.AnnotationPending]) {
		// Times of keys are cut to the second.
		if written.After(came.Add(time.Second)) && (!found || written.Before(first)) {
			first, found = written, true
		}
	}
	return first, found
}

// requestedSince is when somebody last wrote the request for a new key: the annotation
// may say anything, but the API server notes who wrote it and when.
func requestedSince(secret *metav1.PartialObjectMetadata) time.Time {
	since := secret.CreationTimestamp.Time
	for _, entry := range secret.ManagedFields {
		if entry.Time != nil && ownsRequest(entry) {
			since = latest(since, entry.Time.Time)
		}
	}
	return since
}

// ownsRequest tells whether somebody wrote the request for a new key.
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

// requestField is what is kept of the fields of who wrote the request.
const requestField = `{"f:metadata":{"f:annotations":{"f:` + v1beta1.AnnotationRotateRequestedAt + `":{}}}}`

// stripSecret leaves of the managed fields of a Secret who wrote the request for a new key.
func stripSecret(object any) (any, error) {
	secret, ok := object.(metav1.Object)
	if !ok {
		return object, nil
	}
	var kept []metav1.ManagedFieldsEntry
	for _, entry := range secret.GetManagedFields() {
		if ownsRequest(entry) {
			kept = append(kept, metav1.ManagedFieldsEntry{Manager: entry.Manager, Time: entry.Time, FieldsV1: metav1.NewFieldsV1(requestField)})
		}
	}
	secret.SetManagedFields(kept)
	return object, nil
}
