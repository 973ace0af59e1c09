package headscaletest

import (
	"errors"
	"time"
)

// Operation is a call of the admin API.
type Operation string

// The operations. The zero Operation stands for each of them.
const (
	List   Operation = "list"
	Create Operation = "create"
	Expire Operation = "expire"
)

// Effect is what a Fault does to a call.
type Effect int

const (
	// Proceed lets the call succeed, after the Fault's delay. Like Headscale, the
	// fake does what it was asked for even if the caller has hung up meanwhile.
	Proceed Effect = iota
	// Refuse answers with an error, and does nothing.
	Refuse
	// Drop cuts the connection without an answer, and does nothing.
	Drop
	// LoseAnswer does what was asked for, and cuts the connection without an answer.
	LoseAnswer
)

// Fault is a failure to inject.
type Fault struct {
	On    Operation     // zero: every operation
	Do    Effect        // zero: nothing but the delay
	Delay time.Duration // before the effect
	Times int           // how many calls it strikes; 0: all until ClearFaults
}

var (
	// errRefused has a text that SQLite, and so Headscale, gives under load.
	errRefused = errors.New("database is locked")
	// errCut asks the transport to cut the connection.
	errCut = errors.New("connection cut")
)

// Inject adds a fault. A call is struck by the first fault that fits, in the order in
// which they were added.
func (s *Server) Inject(fault Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &fault)
}

// ClearFaults removes all faults, but does not cut short a delay that has begun.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// strike counts a call and takes the fault that it is struck by; the zero Fault if
// there is none.
func (s *Server) strike(operation Operation) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[operation]++
	for i, fault := range s.faults {
		if fault.On != "" && fault.On != operation {
			continue
		}
		struck := *fault
		if fault.Times == 1 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		} else if fault.Times > 1 {
			fault.Times--
		}
		return struck
	}
	return Fault{}
}

// perform does the work of an operation, or what a fault makes of it. It does not
// know the caller's context: Headscale goes on when the caller has left.
func (s *Server) perform(operation Operation, work func(*Database) error) error {
	run, leave := s.enter()
	if run == nil {
		return errCut
	}
	defer leave()
	fault := s.strike(operation)
	if !run.wait(fault.Delay) {
		return errCut
	}
	switch fault.Do {
	case Refuse:
		return errRefused
	case Drop:
		return errCut
	}
	err := work(s.Database())
	if fault.Do == LoseAnswer {
		return errCut
	}
	return err
}
