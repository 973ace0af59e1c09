package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// kill sends SIGKILL to the process of a container, which is found by the UID of its
// pod and the name of its program. The pod must be privileged and see the host's
// processes: from within its own PID namespace, a container's first process cannot be
// killed.
func kill(_ context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("kill needs the UID of a pod and the name of a program")
	}
	uid, program := args[0], args[1]
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return err
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
		first, _, _ := strings.Cut(string(command), "\x00")
		if filepath.Base(first) != program {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return err
		}
		fmt.Println("killing", pid)
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	return fmt.Errorf("pod %s has no process %s", uid, program)
}
