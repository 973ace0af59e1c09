package apikey

import "infrado.cloud/headscale-operator/internal/rotation"

// Observer is notified of what a Manager does and why, with the reasons that the log has.
type Observer interface {
	// Began is called at the beginning of each check.
	Began()
	// Decided is called with each decision and all that it was made of.
	Decided(view View, d rotation.Decision)
	// Did is called after a step has been taken.
	Did(step rotation.Step, reason rotation.Reason)
	// Failed is called after an attempt failed, or was deferred.
	Failed(reason rotation.Reason)
}

// noObserver is an Observer that does nothing.
type noObserver struct{}

func (noObserver) Began()                             {}
func (noObserver) Decided(View, rotation.Decision)    {}
func (noObserver) Did(rotation.Step, rotation.Reason) {}
func (noObserver) Failed(rotation.Reason)             {}
