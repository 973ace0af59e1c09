package status

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/redact"
)

// Condition is the observed state of one condition, and when it will change.
type Condition struct {
	// True is whether the condition is true.
	True bool
	// Reason is a word in CamelCase, and Message a sentence for people.
	Reason, Message string
	// Stalled says that a condition that is not true stays that way until somebody acts.
	Stalled bool
	// ChangesAt is when the condition changes without any event; zero: never.
	ChangesAt time.Time
}

// True is a condition that is true.
func True(reason, message string) Condition {
	return Condition{True: true, Reason: reason, Message: message}
}

// False is a condition that is not true, and may become true by itself.
func False(reason, message string) Condition {
	return Condition{Reason: reason, Message: message}
}

// Stall returns the condition as one that stays false until somebody acts.
func (c Condition) Stall() Condition {
	c.Stalled = true
	return c
}

// Until returns the condition as one that changes at a time; zero: never.
func (c Condition) Until(changesAt time.Time) Condition {
	c.ChangesAt = changesAt
	return c
}

// WithDeadline returns the condition with a time after which it counts as stalled if it is still
// false.
func (c Condition) WithDeadline(deadline, now time.Time) Condition {
	switch {
	case c.True || c.Stalled:
	case now.Before(deadline):
		c.ChangesAt = Soonest(c.ChangesAt, deadline)
	default:
		c.Stalled = true
	}
	return c
}

// Tolerate is for something that is normal for a while: until it has lasted longer than that, the
// condition's reason is Progressing.
func Tolerate(trouble Condition, since time.Time, patience time.Duration, now time.Time) Condition {
	if until := since.Add(patience); now.Before(until) {
		return False(v1beta1.ReasonProgressing, trouble.Message).Until(until)
	}
	return trouble
}

// maxMessage is the longest message that the API accepts in a condition, in bytes
// (metav1.Condition's MaxLength).
const maxMessage = 32768

// Set sets a condition that is always there. Its message is sanitized: it quotes
// what users wrote.
func Set(conditions *[]metav1.Condition, kind string, condition Condition, generation int64, now time.Time) {
	status := metav1.ConditionFalse
	if condition.True {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(conditions, metav1.Condition{
		Type:               kind,
		Status:             status,
		ObservedGeneration: generation,
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
		Reason:             condition.Reason,
		Message:            redact.Line(condition.Message, maxMessage),
	})
}

// SetWhileTrue sets a condition that is there only while it is true.
func SetWhileTrue(conditions *[]metav1.Condition, kind string, condition Condition, generation int64, now time.Time) {
	if !condition.True {
		meta.RemoveStatusCondition(conditions, kind)
		return
	}
	Set(conditions, kind, condition, generation, now)
}

// ReasonOf is the reason of a condition, or "".
func ReasonOf(conditions []metav1.Condition, kind string) string {
	if condition := meta.FindStatusCondition(conditions, kind); condition != nil {
		return condition.Reason
	}
	return ""
}

// Since is how long a condition has had a status; now, where it does not have it yet.
func Since(conditions []metav1.Condition, kind string, status metav1.ConditionStatus, now time.Time) time.Time {
	condition := meta.FindStatusCondition(conditions, kind)
	if condition == nil || condition.Status != status {
		return now
	}
	return condition.LastTransitionTime.Time
}

// Latest is the last of some times.
func Latest(times ...time.Time) time.Time {
	var last time.Time
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// Soonest is the first of some times; zero times do not count.
func Soonest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
