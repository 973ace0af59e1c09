package status

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"infrado.cloud/headscale-operator/internal/redact"
)

// maxNote is the longest note that the API accepts in an event, in bytes.
const maxNote = 1024

// Recorder records events, as the event recorder of a manager does.
type Recorder interface {
	// Eventf records an event about an object: its type, why it is recorded and by which
	// action in CamelCase, and a note for people as a format with its arguments.
	Eventf(regarding, related runtime.Object, kind, reason, action, note string, arguments ...any)
}

// Actions, in the sense of the events API, by which events come about.
const (
	// ActionReconcile is a change of what the controller manages.
	ActionReconcile = "Reconcile"
	// ActionObserve is something that the controller observed.
	ActionObserve = "Observe"
)

// Event is one event about an object.
type Event struct {
	// Warning is whether its type is Warning and not Normal.
	Warning bool
	// Action is ActionReconcile or ActionObserve; empty: ActionObserve.
	Action string
	// Related is another object that the event is about; nil: none. Events that differ in
	// their notes alone count as one that happens again.
	Related *corev1.ObjectReference
	// Reason is a word in CamelCase, and Note a sentence for people.
	Reason, Note string
}

// Record records events about an object. Notes are sanitized: they quote what users
// wrote.
func Record(recorder Recorder, object runtime.Object, events ...Event) {
	for _, e := range events {
		kind, action := corev1.EventTypeNormal, e.Action
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		if action == "" {
			action = ActionObserve
		}
		var related runtime.Object
		if e.Related != nil {
			related = e.Related
		}
		recorder.Eventf(object, related, kind, e.Reason, action, "%s", redact.Line(e.Note, maxNote))
	}
}

// Warnings are the warning events of a change of some conditions: one for each of the reasons that
// a condition did not have before. They are derived from the stored status, so that each is
// recorded once, whichever operator sees the change.
func Warnings(before, after []metav1.Condition, kinds, reasons []string) []Event {
	var events []Event
	var noted []string
	for _, kind := range kinds {
		was, is := ReasonOf(before, kind), meta.FindStatusCondition(after, kind)
		if is == nil || is.Reason == was || !slices.Contains(reasons, is.Reason) || slices.Contains(noted, is.Reason) {
			continue
		}
		noted = append(noted, is.Reason)
		events = append(events, Event{Warning: true, Reason: is.Reason, Note: is.Message})
	}
	return events
}

// FirstOf is the first reason of some conditions that is one of reasons, or "".
func FirstOf(conditions []metav1.Condition, kinds, reasons []string) string {
	for _, kind := range kinds {
		if reason := ReasonOf(conditions, kind); slices.Contains(reasons, reason) {
			return reason
		}
	}
	return ""
}
