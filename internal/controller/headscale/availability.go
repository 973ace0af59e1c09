package headscale

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// availability tells whether Headscale answers, and if not, why.
func availability(p *pass) state {
	switch live := p.statefulSet; {
	case stopped(p.headscale):
		return state{verdict: verdict{false, v1beta1.ReasonScaledToZero, "Headscale is stopped because spec.replicas is 0; set it to 1 to start it"}}
	case live == nil:
		return state{verdict: verdict{false, v1beta1.ReasonProgressing, "There is no StatefulSet yet"}}
	case p.pod != nil:
		return withDeadline(p, stateOfHeadscale(p.pod, p.claim, p.now))
	default:
		return stateOfMissingPod(p)
	}
}

// stateOfMissingPod says that there is no pod, which is trouble only when it lasts.
func stateOfMissingPod(p *pass) state {
	missing := verdict{false, v1beta1.ReasonPodMissing, fmt.Sprintf(
		"There is no pod %[1]s-0; kubectl describe statefulset %[1]s tells why if this lasts", p.statefulSet.Name)}
	since, observed := lastObserved(p)
	if !observed {
		return state{verdict: verdict{false, v1beta1.ReasonProgressing, missing.message}}
	}
	return withDeadline(p, onceItLasts(missing, since, settling, p.now))
}

// withDeadline lets a state that should pass by itself count as one that does not when it
// has lasted too long. The time begins anew with every pod, and what is wrong with an old
// pod says nothing of the one that is to replace it.
func withDeadline(p *pass, available state) state {
	since := falseSince(p, v1beta1.ConditionAvailable)
	if p.pod != nil {
		since = latest(since, p.pod.CreationTimestamp.Time)
	}
	if !rollout(p).ok {
		available.helpless = false
		changed, observed := lastObserved(p)
		if !observed {
			return available
		}
		since = latest(since, changed)
	}
	return available.until(since.Add(progressDeadline), p.now)
}

// stopped tells whether the user wants no pod.
func stopped(headscale *v1beta1.Headscale) bool {
	return headscale.Spec.Replicas != nil && *headscale.Spec.Replicas == 0
}

// rollout tells whether the pod that is there is the one that was asked for last.
func rollout(p *pass) verdict {
	switch live := p.statefulSet; {
	case live == nil:
		return verdict{false, v1beta1.ReasonProgressing, "There is no StatefulSet yet"}
	case !live.DeletionTimestamp.IsZero():
		return verdict{false, v1beta1.ReasonProgressing, "The StatefulSet is being made anew; the pod goes on running"}
	case live.Status.ObservedGeneration < live.Generation || live.Status.UpdatedReplicas < live.Status.Replicas || live.Status.UpdatedReplicas == 0,
		// The StatefulSet and its pod are not seen at the same time.
		p.pod != nil && p.pod.Labels[appsv1.ControllerRevisionHashLabelKey] != live.Status.UpdateRevision:
		return verdict{false, v1beta1.ReasonProgressing, "The pod is being replaced by one with the present settings"}
	default:
		return verdict{true, v1beta1.ReasonReady, ""}
	}
}

// progress tells whether something is under way that ends by itself.
func progress(p *pass, parts judgement) verdict {
	failed := parts.failed
	switch {
	case failed != nil:
		return verdict{!failed.stalled(), failed.reason, failed.message}
	case stopped(p.headscale) && p.statefulSet != nil && p.statefulSet.Status.Replicas == 0:
		return verdict{false, v1beta1.ReasonScaledToZero, parts.available.message}
	case !parts.rolledOut.ok && !stopped(p.headscale) && parts.available.ok:
		return verdict{true, parts.rolledOut.reason, parts.rolledOut.message}
	case !parts.available.ok:
		return verdict{!parts.available.helpless, parts.available.reason, parts.available.message}
	case !parts.key.ok:
		return verdict{!parts.key.helpless, parts.key.reason, parts.key.message}
	default:
		return verdict{false, v1beta1.ReasonComplete, "Nothing is under way"}
	}
}

// stall tells whether only the user can put right what is wrong. It is never true at the
// same time as progress.
func stall(parts judgement) verdict {
	failed := parts.failed
	switch {
	case failed != nil:
		return verdict{failed.stalled(), failed.reason, failed.message}
	case !parts.available.ok:
		return verdict{parts.available.helpless, parts.available.reason, parts.available.message}
	case !parts.key.ok && parts.rolledOut.ok:
		return verdict{parts.key.helpless, parts.key.reason, parts.key.message}
	default:
		return verdict{}
	}
}
