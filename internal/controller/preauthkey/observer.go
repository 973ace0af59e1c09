package preauthkey

import (
	"fmt"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// observer reports what a rotation does.
type observer struct {
	r *Reconciler
	s *scope
	// usedUp is whether the key that was in the Secret last was for one node, and used.
	usedUp bool
}

// Decided notes whether the key was used up that may be replaced, for whichever reason. What was decided
// last, the rotation returns.
func (o *observer) Decided(v view, _ rotation.Decision) {
	if key := v.Stored(); key != nil {
		o.usedUp = isUsedUp(key)
	}
}

// Reached is where a test cuts a rotation off.
func (o *observer) Reached(step rotation.Step) {
	if o.r.Reached != nil {
		o.r.Reached(keyOf(o.s.key), step)
	}
}

// Did reports a key that was stored.
func (o *observer) Did(event rotation.Event) {
	if event.Step != rotation.StepStore {
		return
	}
	if o.usedUp && !o.s.key.Status.Over { // else it was counted when it was not to be replaced
		o.s.reissued++
	}
	reason := v1beta1.EventKeyRotated
	if o.s.key.Status.KeyID == 0 {
		reason = v1beta1.EventKeyStored
	}
	o.r.recordEvent(o.s, false, reason, "Secret %s has a new pre-auth key, valid until %s: %s",
		o.s.key.EffectiveSecretName(), rotation.ShowTime(event.Expiration), event.Message)
}

// Failed reports a key that stays valid for now. It is tried again.
func (o *observer) Failed(err error) {
	o.r.recordEvent(o.s, true, v1beta1.ReasonRotationFailing, "Cannot expire a pre-auth key that must not be used any more; retrying: %v", err)
}

// recordEvent records an event.
func (r *Reconciler) recordEvent(s *scope, warning bool, reason, format string, arguments ...any) {
	status.Record(r.Events, s.key, status.Event{Warning: warning, Action: status.ActionReconcile, Reason: reason, Note: fmt.Sprintf(format, arguments...)})
}
