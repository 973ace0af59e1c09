package apikey

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// refusalPause is the least time between two refusals of Headscale in the log, which its words
// are in: a Headscale that was taken over could fill the log with them.
const refusalPause = time.Minute

// waitingMessage is what the log says while Headscale does not answer.
const waitingMessage = "Waiting for Headscale to be ready..."

// reporter reports everything to the observer, and writes one line to the log per change
// of state and none for a repetition. It is what the rotation reports to.
type reporter struct {
	log      *slog.Logger
	observer Observer
	keyring  Keyring
	// secrets are the texts that no message may contain.
	secrets func() []string
	// certified reports whether the Secret has the certificate of the admin endpoint.
	certified func() bool
	// uncertified is whether the certificate is all that the Secret's annotations lack.
	uncertified bool
	state       string
	// now is the time, and refused when the log had the last refusal of Headscale.
	now     func() time.Time
	refused time.Time
	// failing is whether the state is a failure.
	failing bool
	// ignored distinguishes the last rotation request that was too long from the next, and notice is
	// the sentence about it, which other goroutines read.
	ignored [sha256.Size]byte
	notice  atomic.Pointer[string]
}

var _ rotation.Observer[headscale.APIKey] = (*reporter)(nil)

// Decided reports a decision, which is not the end of anything yet.
func (r *reporter) Decided(view View, d rotation.Decision) {
	acceptStored(r.keyring, view)
	r.uncertified = d.Action == rotation.Repair && !r.certified() && d.Record.ID == view.Record.ID &&
		d.Record.Expiration.Equal(view.Record.Expiration) && d.Record.CreatedAt.Equal(view.Record.CreatedAt)
	r.observer.Decided(view, d)
}

// Reached ends the program where a test of it wants that.
func (r *reporter) Reached(step rotation.Step) { faultpoint(step) }

// rested reports where a check came to rest.
func (r *reporter) rested(d rotation.Decision, view View) {
	r.failing = false
	if !r.enter(string(d.Reason)) {
		return
	}
	if d.Action == rotation.Blocked {
		r.log.Warn("Cannot manage the API key", "reason", d.Reason, "message", d.Message)
		return
	}
	r.log.Info("The API key is up to date", "reason", d.Reason, "prefix", view.Record.ID, "message", d.Message)
}

// Did reports a step that was taken.
func (r *reporter) Did(event rotation.Event) {
	r.observer.Did(event.Step, event.Reason)
	r.failing = false
	switch event.Step {
	case rotation.StepStore:
		r.did("Stored a new API key", "reason", event.Reason, "prefix", event.ID, "expiration", rotation.FormatTime(event.Expiration),
			"replaces", strings.Join(event.Replaces, ","), "message", event.Message)
	case rotation.StepExpire:
		r.did("Expired an API key", "reason", event.Reason, "prefix", event.ID, "message", event.Message)
	case rotation.StepRepair:
		if r.uncertified {
			r.did("Wrote the certificate of the admin endpoint to the Secret's annotations")
			return
		}
		r.did("Corrected the Secret's annotations", "reason", event.Reason, "message", event.Message)
	}
}

func (r *reporter) did(text string, attributes ...any) {
	r.enter(text)
	r.log.Info(text, attributes...)
}

// Failed reports what keeps the Manager from going on, without the secrets. That the next
// attempt has to wait is no news after a failure.
func (r *reporter) Failed(err error) {
	reason := reasonOf(err)
	r.observer.Failed(reason)
	if r.failing && reason == rotation.ReasonThrottled {
		return
	}
	r.failing = true
	refused := errors.Is(err, headscale.ErrRefused)
	if refused && r.now().Sub(r.refused).Abs() < refusalPause || !r.enter(string(reason)) {
		return
	}
	if refused {
		r.refused = r.now()
	}
	message := without(err, r.secrets())
	if errors.Is(err, headscale.ErrUnavailable) {
		r.log.Info(waitingMessage, "reason", reason, "message", message)
		return
	}
	r.log.Warn("Cannot manage the API key; trying again", "reason", reason, "message", message)
}

// requested reports a rotation request that is too long to count, once for each value. It
// does not quote what may be as long as a Secret.
func (r *reporter) requested(value string) {
	if len(value) <= v1beta1.MaxRotationRequest {
		r.ignored = [sha256.Size]byte{}
		r.notice.Store(nil)
		return
	}
	digest := sha256.Sum256([]byte(value))
	if digest == r.ignored {
		return
	}
	r.ignored = digest
	notice := fmt.Sprintf("the annotation %s of the Secret has %d bytes and is ignored: write at most %d, such as the time",
		v1beta1.AnnotationRotateRequestedAt, len(value), v1beta1.MaxRotationRequest)
	r.notice.Store(&notice)
	r.log.Warn("Ignoring a rotation request", "message", notice)
}

// enter notes a state and reports whether it is a new one.
func (r *reporter) enter(state string) bool {
	changed := r.state != state
	r.state = state
	return changed
}
