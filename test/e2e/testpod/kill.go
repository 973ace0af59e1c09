package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kill sends SIGKILL to the process of a container. The pod must be privileged and see
// the host's processes: from within its own PID namespace, a container's first process
// cannot be killed.
func kill(_ context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("kill needs the UID of a pod and the name of a program")
	}
	pid, err := findProcess(args[0], args[1])
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// findProcess finds the process of a container by the UID of its pod and the name of its
// program.
func findProcess(uid, program string) (int, error) {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0, err
	}
	for _, group := range groups {
		dir := filepath.Dir(group)
		content, err := os.ReadFile(group)
		// The systemd driver writes the UID with underscores.
		if err != nil || !strings.Contains(strings.ReplaceAll(string(content), "_", "-"), uid) {
			continue
		}
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		if first, _, _ := strings.Cut(string(command), "\x00"); filepath.Base(first) == program {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("pod %s has no process %s", uid, program)
}

// gonePoll is how often a killed process is looked for.
const gonePoll = time.Millisecond

// awaitGone waits until a process has ended, so that it does nothing more.
func awaitGone(ctx context.Context, pid int) error {
	every := time.NewTicker(gonePoll)
	defer every.Stop()
	for {
		// Where nobody has waited for it, it is still in the table, as a zombie: state Z.
		status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(status), "\nState:\tZ") {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		}
	}
}
