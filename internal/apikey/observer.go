package apikey

// Observer is told what a Manager does and why, with the reasons that the log has.
type Observer interface {
	// Began is called at the beginning of each check.
	Began()
	// Decided is called with each decision and all that it was made of.
	Decided(view View, d Decision)
	// Did is called after a step has been taken.
	Did(step Step, reason Reason)
	// Failed is called after an attempt failed, or had to be put off.
	Failed(reason Reason)
}

// nobody is an Observer that looks away.
type nobody struct{}

func (nobody) Began()                 {}
func (nobody) Decided(View, Decision) {}
func (nobody) Did(Step, Reason)       {}
func (nobody) Failed(Reason)          {}
