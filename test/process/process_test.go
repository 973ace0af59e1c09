package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"

	"infrado.cloud/headscale-operator/test/process"
)

// shell describes a process that runs a shell script.
func shell(script string) process.Command {
	return process.Command{Name: "shell", Path: "/bin/sh", Args: []string{"-c", script}}
}

// alive reports whether a process exists that is not a zombie.
func alive(pid int) bool {
	state, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(state)), "Z")
}

func start(command process.Command) *process.Process {
	GinkgoHelper()
	p, err := process.Start(command)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(p.Kill)
	return p
}

var _ = Describe("A process", func() {
	It("has its output kept and handed on, and tells how it ended", func(ctx SpecContext) {
		copied := gbytes.NewBuffer()
		command := shell("echo one; echo two >&2; exit 3")
		command.Output = copied
		p := start(command)
		Expect(p.Wait(ctx)).To(MatchError("exit status 3"))
		Expect(p.ExitCode()).To(Equal(3))
		Expect(p.Running()).To(BeFalse())
		Expect(p.Log().String()).To(Equal("one\ntwo\n"))
		Expect(p.Log().Tail(1)).To(Equal("two"))
		Expect(copied.Contents()).To(BeEquivalentTo("one\ntwo\n"))
	})

	It("ends on SIGTERM within the grace", func() {
		p := start(shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"))
		Eventually(p.Log().String).Should(ContainSubstring("up"))
		Expect(p.Stop(10 * time.Second)).To(Succeed())
		Expect(p.ExitCode()).To(Equal(0))
	})

	It("is killed with its descendants when it does not", func() {
		p := start(shell("trap '' TERM; (trap '' TERM; echo child=$(exec sh -c 'echo $PPID'); while :; do sleep 0.01; done) & echo up; wait"))
		Eventually(p.Log().String).Should(And(ContainSubstring("up"), MatchRegexp(`child=\d+`)))
		_, number, _ := strings.Cut(p.Log().String(), "child=")
		child, err := strconv.Atoi(strings.Fields(number)[0])
		Expect(err).NotTo(HaveOccurred())

		Expect(p.Stop(50 * time.Millisecond)).To(MatchError(ContainSubstring("was killed")))
		Expect(p.ExitCode()).To(Equal(-1))
		Eventually(alive).WithArguments(child).Should(BeFalse())
	})

	It("says which one could not be started", func() {
		_, err := process.Start(process.Command{Name: "headscale", Path: "/does/not/exist"})
		Expect(err).To(MatchError(ContainSubstring("starting headscale: ")))
	})
})

var _ = Describe("A guard", func() {
	It("removes its directory and what runs there", func() {
		guard, err := process.NewGuard("guard-test-")
		Expect(err).NotTo(HaveOccurred())
		command := shell("sleep 600")
		command.Guard = guard
		p := start(command)
		Expect(filepath.Join(guard.Dir(), "pids", strconv.Itoa(p.PID()))).To(BeARegularFile())

		Expect(guard.Close()).To(Succeed())
		Eventually(p.Exited()).Should(BeClosed())
		Expect(guard.Dir()).NotTo(BeADirectory())
	})

	It("does so too when the program that holds it is killed", func(ctx SpecContext) {
		p := start(process.Command{
			Name: "holder", Path: os.Args[0], Env: append(os.Environ(), "TEST_GUARD_HOLDER=1"),
		})
		Eventually(p.Log().String).Should(MatchRegexp(`(?s)dir=\S+\n.*pid=\d+\n.*wrapped=\d+\n`))
		said := map[string]string{}
		for _, line := range strings.Split(p.Log().String(), "\n") {
			name, value, _ := strings.Cut(line, "=")
			said[name] = value
		}
		var pids []int
		for _, name := range []string{"pid", "wrapped"} {
			pid, err := strconv.Atoi(said[name])
			Expect(err).NotTo(HaveOccurred())
			pids = append(pids, pid)
			Expect(alive(pid)).To(BeTrue(), name)
		}
		// The guard ends only what is listed, and the wrapper lists itself after its start.
		Eventually(func() string { return filepath.Join(said["dir"], "wrapped", said["wrapped"]) }).Should(BeARegularFile())

		Expect(p.Signal(syscall.SIGKILL)).To(Succeed())
		Expect(p.Wait(ctx)).NotTo(Succeed())
		for _, pid := range pids {
			Eventually(alive).WithArguments(pid).Should(BeFalse())
		}
		Eventually(func() string { return said["dir"] }).ShouldNot(BeADirectory())
	})
})
