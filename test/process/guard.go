package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// Guard cleans up after this program even when it can no longer do so itself: it
// panicked, ran into a time limit, or was killed. A small process waits for the
// end of a pipe that only this program holds open; then it kills what is listed
// in the guarded directory, and removes that directory.
type Guard struct {
	dir   string
	alive io.Closer
	cmd   *exec.Cmd
}

// guardScript gets the guarded directory as $1. The names in its subdirectories
// are ids of processes: in pids of groups that are alive, in wrapped of processes
// that may be gone, so that their command line must name the directory.
const guardScript = `
trap '' HUP INT TERM
cat >/dev/null
for round in 1 2 3; do
  for pid in $(ls "$1/pids" 2>/dev/null); do kill -9 "-$pid" 2>/dev/null; done
  for pid in $(ls "$1/wrapped" 2>/dev/null); do
    case $(ps -o args= -p "$pid" 2>/dev/null) in *"$1"*) kill -9 "$pid" ;; esac
  done
  rm -rf "$1" && break
  sleep 0.2
done
`

// NewGuard makes a temporary directory with a short path (socket paths may have
// no more than about 100 bytes), so not in the usual place, and guards it.
func NewGuard(prefix string) (*Guard, error) {
	tmp, err := filepath.EvalSymlinks("/tmp")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(tmp, prefix)
	if err != nil {
		return nil, err
	}
	for _, list := range []string{"pids", "wrapped"} {
		if err := os.Mkdir(filepath.Join(dir, list), 0o700); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("/bin/sh", "-c", guardScript, "guard", dir) //nolint:noctx // ends with the pipe
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("starting the guard of %s: %w", dir, err)
	}
	return &Guard{dir: dir, alive: alive, cmd: cmd}, nil
}

// Dir is the guarded directory.
func (g *Guard) Dir() string { return g.dir }

// Close kills what is still listed, removes the directory, and waits until that
// is done.
func (g *Guard) Close() error {
	_ = g.alive.Close()
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("cleaning %s: %w", g.dir, err)
	}
	return nil
}

// watch lists a process until the returned function is called.
func (g *Guard) watch(pid int) func() {
	if g == nil {
		return func() {}
	}
	path := filepath.Join(g.dir, "pids", strconv.Itoa(pid))
	_ = os.WriteFile(path, nil, 0o600)
	return func() { _ = os.Remove(path) }
}

// Wrap writes a script that runs a program and lists its process id in the
// directory, for programs that are started by others. The guard ends such a
// process only if its command line names the guarded directory.
func (g *Guard) Wrap(program string) (string, error) {
	script := filepath.Join(g.dir, "guarded-"+filepath.Base(program))
	text := fmt.Sprintf("#!/bin/sh\n: >%q/wrapped/$$\nexec %q \"$@\"\n", g.dir, program)
	return script, os.WriteFile(script, []byte(text), 0o700)
}
