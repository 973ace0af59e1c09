package headscaletest

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Operation is a call of the admin API.
type Operation string

// The operations; the first three are those of API keys. The zero Operation stands for each of
// them.
const (
	List   Operation = "list"
	Create Operation = "create"
	Expire Operation = "expire"

	ListUsers        Operation = "list users"
	CreateUser       Operation = "create user"
	RenameUser       Operation = "rename user"
	DeleteUser       Operation = "delete user"
	ListNodes        Operation = "list nodes"
	ApproveRoutes    Operation = "approve routes"
	ExpireNode       Operation = "expire node"
	DeleteNode       Operation = "delete node"
	ListPreAuthKeys  Operation = "list pre-auth keys"
	CreatePreAuthKey Operation = "create pre-auth key"
	ExpirePreAuthKey Operation = "expire pre-auth key"
	DeletePreAuthKey Operation = "delete pre-auth key"
	GetPolicy        Operation = "get policy"
	SetPolicy        Operation = "set policy"
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
	// Until holds a call, before the delay, until it is closed, which must be before the server is
	// stopped. Nil: no call is held.
	Until <-chan struct{}
}

var (
	// errRefused has a text that SQLite, and so Headscale, gives under load.
	errRefused = errors.New("database is locked")
	// errCut asks the transport to cut the connection.
	errCut = errors.New("connection cut")
)

// Faults are the failures that a server is to have. It is safe for concurrent use.
type Faults struct {
	mu     sync.Mutex
	faults []Fault
}

// Inject adds a fault. A call is struck by the first fault that fits, in the order in
// which they were added.
func (f *Faults) Inject(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fault)
}

// ClearFaults removes all faults, but does not cut short a delay that has begun.
func (f *Faults) ClearFaults() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// take returns the fault that a call is struck by; the zero Fault if there is none.
func (f *Faults) take(operation Operation) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.faults, func(fault Fault) bool { return fault.On == "" || fault.On == operation })
	if i < 0 {
		return Fault{}
	}
	struck := f.faults[i]
	if struck.Times == 1 {
		f.faults = slices.Delete(f.faults, i, i+1)
	} else if struck.Times > 1 {
		f.faults[i].Times--
	}
	return struck
}

// Strike does the work of an operation, or what a fault makes of it. The wait for a
// fault's delay returns false when the server was stopped before.
func (f *Faults) Strike(operation Operation, wait func(time.Duration) bool, work func() error) error {
	fault := f.take(operation)
	if fault.Until != nil {
		<-fault.Until
	}
	if !wait(fault.Delay) {
		return errCut
	}
	switch fault.Do {
	case Refuse:
		return errRefused
	case Drop:
		return errCut
	}
	err := work()
	if fault.Do == LoseAnswer {
		return errCut
	}
	return err
}
