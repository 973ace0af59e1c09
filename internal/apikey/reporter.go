package apikey

import (
	"errors"
	"log/slog"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// waitingMessage is what the log says while Headscale does not answer.
const waitingMessage = "Waiting for Headscale to be ready..."

// reporter tells the observer of everything, and writes one line to the log per change
// of state and none for a repetition.
type reporter struct {
	log      *slog.Logger
	observer Observer
	state    string
	// failing is whether the state is a failure.
	failing bool
}

// decision reports where the checks came to rest.
func (r *reporter) decision(d Decision, view View) {
	r.failing = false
	if !r.enter(string(d.Reason)) {
		return
	}
	if d.Action == Blocked {
		r.log.Warn("Cannot manage the API key", "reason", d.Reason, "message", d.Message)
		return
	}
	r.log.Info("The API key is up to date", "reason", d.Reason, "prefix", view.Record.Prefix, "message", d.Message)
}

// step reports something that was done.
func (r *reporter) step(step Step, text string, reason Reason, attributes ...any) {
	r.observer.Did(step, reason)
	r.failing = false
	r.enter(text)
	r.log.Info(text, append([]any{"reason", reason}, attributes...)...)
}

// failure reports what keeps us from going on, without the secrets. That the next
// attempt has to wait is no news after a failure.
func (r *reporter) failure(err error, secrets []string) {
	reason := reasonOf(err)
	r.observer.Failed(reason)
	if r.failing && reason == ReasonThrottled {
		return
	}
	r.failing = true
	if !r.enter(string(reason)) {
		return
	}
	if errors.Is(err, headscale.ErrUnavailable) {
		r.log.Info(waitingMessage, "reason", reason, "message", without(err, secrets))
		return
	}
	r.log.Warn("Cannot manage the API key; trying again", "reason", reason, "message", without(err, secrets))
}

// enter notes a state and reports whether it is a new one.
func (r *reporter) enter(state string) bool {
	changed := r.state != state
	r.state = state
	return changed
}
