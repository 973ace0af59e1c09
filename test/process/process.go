// Package process runs the servers of a test as child processes that do not
// outlive it: each in a process group of its own, ended by its id, with its
// output kept.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// drainTimeout is how long output that a descendant still writes is waited for
// after the process has exited.
const drainTimeout = 2 * time.Second

// Command says what to run.
type Command struct {
	Name   string // of the process, for people
	Path   string // of the program
	Args   []string
	Env    []string // the whole environment; nil means that of this process
	Dir    string
	Output io.Writer // receives everything that the process prints, besides its Log; may be nil
	Guard  *Guard    // if there is one, it ends the process also when this program is killed
}

// Process is a child process.
type Process struct {
	name   string
	cmd    *exec.Cmd
	log    *Log
	exited chan struct{}
	err    error // how it ended; valid once exited is closed
}

// Start starts a process.
func Start(command Command) (*Process, error) {
	p := &Process{name: command.Name, log: NewLog(command.Output), exited: make(chan struct{})}
	p.cmd = exec.Command(command.Path, command.Args...) //nolint:noctx // ended by Stop and Kill
	p.cmd.Env, p.cmd.Dir = command.Env, command.Dir
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = attributes()
	p.cmd.WaitDelay = drainTimeout
	started := make(chan error)
	go p.run(started, command.Guard)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", command.Name, err)
	}
	return p, nil
}

// run starts the process and waits for its end. On Linux the kernel kills the
// child when the thread that started it is gone, so this goroutine keeps the
// thread for as long as the child lives.
func (p *Process) run(started chan<- error, guard *Guard) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	release := guard.watch(p.PID())
	started <- nil
	p.err = p.cmd.Wait()
	// Descendants that are left in its group go with it.
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	release()
	close(p.exited)
}

// PID is the id of the process, and of its process group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Name is the name that the process was given.
func (p *Process) Name() string { return p.name }

// Log is what the process has printed.
func (p *Process) Log() *Log { return p.log }

// Exited is closed once the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// ExitCode is the exit status: -1 while the process runs and when a signal ended it.
func (p *Process) ExitCode() int {
	if p.Running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Describe says in words how the process ended, or that it runs.
func (p *Process) Describe() string {
	if p.Running() {
		return "running"
	}
	return p.cmd.ProcessState.String()
}

// Wait waits for the end and returns how it came: nil for exit status 0.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.exited:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Signal sends a signal to the process, not to its descendants.
func (p *Process) Signal(signal os.Signal) error {
	if err := p.cmd.Process.Signal(signal); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Stop asks the process to end (SIGTERM), and kills it after the grace. It
// returns an error only when it had to kill.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping %s: %w", p.name, err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(grace):
		p.Kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM and was killed", p.name, grace)
	}
}

// Kill ends the process and its group at once (SIGKILL) and waits for the end.
func (p *Process) Kill() {
	if p.Running() {
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	}
	<-p.exited
}

// Log collects what a process prints. It is safe for concurrent use.
type Log struct {
	mutex sync.Mutex
	text  bytes.Buffer
	tee   io.Writer
}

// NewLog returns a Log that also hands on what it is given to another writer,
// which may be nil.
func NewLog(tee io.Writer) *Log {
	return &Log{tee: tee}
}

// Write adds to the log.
func (l *Log) Write(text []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.text.Write(text)
	if l.tee != nil {
		// A process must not die of a broken pipe because nobody listens.
		_, _ = l.tee.Write(text)
	}
	return len(text), nil
}

// String is everything so far.
func (l *Log) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

// Tail is the last lines, without a final newline.
func (l *Log) Tail(lines int) string {
	all := strings.Split(strings.TrimRight(l.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
