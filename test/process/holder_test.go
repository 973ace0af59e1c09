package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"infrado.cloud/headscale-operator/test/process"
)

// TestMain lets a spec run this test program a second time as one that holds a
// guard until it is killed.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_GUARD_HOLDER") != "" {
		if err := holdGuard(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// holdGuard starts one process through the package and one behind its back.
func holdGuard() error {
	guard, err := process.NewGuard("guard-test-")
	if err != nil {
		return err
	}
	fmt.Printf("dir=%s\n", guard.Dir())
	command := process.Command{Name: "sleep", Path: "/bin/sleep", Args: []string{"600"}, Guard: guard}
	p, err := process.Start(command)
	if err != nil {
		return err
	}
	fmt.Printf("pid=%d\n", p.PID())

	script, err := guard.Wrap("/bin/sh")
	if err != nil {
		return err
	}
	wrapped := exec.Command(script, "-c", "while :; do sleep 1; done", guard.Dir())
	wrapped.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := wrapped.Start(); err != nil {
		return err
	}
	fmt.Printf("wrapped=%d\n", wrapped.Process.Pid)
	return wrapped.Wait()
}
