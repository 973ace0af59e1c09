package headscale

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// progressDeadline is how long something may be wrong that should come right by itself.
// It is Kubernetes' default of a Deployment's progressDeadlineSeconds.
const progressDeadline = 10 * time.Minute

// verdict is the state of one condition.
type verdict struct {
	ok              bool
	reason, message string
}

// state is a verdict and what becomes of it.
type state struct {
	verdict
	// helpless tells of one that is not ok that it stays so until somebody helps.
	helpless bool
	// changesAt is when the same facts will mean something else; zero: never.
	changesAt time.Time
}

// until is the state with a time after which it counts as helpless if it lasts.
func (s state) until(deadline, now time.Time) state {
	switch {
	case s.ok || s.helpless:
	case now.Before(deadline):
		s.changesAt = soonest(s.changesAt, deadline)
	default:
		s.helpless = true
	}
	return s
}

// onceItLasts is the state of something that is usual for a while: before, only its
// message is told.
func onceItLasts(trouble verdict, since time.Time, patience time.Duration, now time.Time) state {
	if until := since.Add(patience); now.Before(until) {
		return state{verdict: verdict{false, v1beta1.ReasonProgressing, trouble.message}, changesAt: until}
	}
	return state{verdict: trouble}
}

// since is how long a condition has had a status, as far as the resource's status says
// so; now, where it does not have that status yet.
func since(p *pass, kind string, status metav1.ConditionStatus) time.Time {
	condition := meta.FindStatusCondition(p.headscale.Status.Conditions, kind)
	if condition == nil || condition.Status != status {
		return p.now
	}
	return condition.LastTransitionTime.Time
}

// falseSince is since when a condition is false.
func falseSince(p *pass, kind string) time.Time { return since(p, kind, metav1.ConditionFalse) }

// trueSince is since when a condition is true.
func trueSince(p *pass, kind string) time.Time { return since(p, kind, metav1.ConditionTrue) }

// lastObserved is when Kubernetes last had something new to say of the StatefulSet, in its
// present generation: it says so when it makes a pod and when one goes. False: it has said
// nothing yet, and there will be word of it when it does.
func lastObserved(p *pass) (time.Time, bool) {
	live := p.statefulSet
	if live.Status.ObservedGeneration < live.Generation {
		return time.Time{}, false
	}
	var last time.Time
	for _, entry := range live.ManagedFields {
		if entry.Subresource == "status" && entry.Time != nil {
			last = latest(last, entry.Time.Time)
		}
	}
	if last.IsZero() {
		return p.now, true
	}
	return last, true
}

// latest is the last of some times.
func latest(times ...time.Time) time.Time {
	var last time.Time
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// soonest is the first of some times; zero times are none.
func soonest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
