package release_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestInputsArePinnedOrListed(t *testing.T) {
	printed, err := exec.CommandContext(t.Context(), "go", "run", "../../hack/pinned", "-C", "../..").CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(printed))
}

func TestOnlyCommitsOfMainAreReleased(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	git := func(args ...string) string {
		command := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
		command.Dir = dir
		printed, err := command.CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), string(printed))
		return strings.TrimSpace(string(printed))
	}
	git("init", "-q", "-b", "main")
	git("commit", "-q", "--allow-empty", "-m", "one")
	onMain := git("rev-parse", "HEAD")
	git("checkout", "-q", "-b", "side")
	git("commit", "-q", "--allow-empty", "-m", "two")
	script, err := filepath.Abs(filepath.Join("..", "..", "hack", "check-on-main"))
	g.Expect(err).NotTo(HaveOccurred())
	for commit, good := range map[string]bool{onMain: true, git("rev-parse", "HEAD"): false} {
		command := exec.CommandContext(t.Context(), script, commit, "main")
		command.Dir = dir
		printed, err := command.CombinedOutput()
		g.Expect(err == nil).To(Equal(good), string(printed))
	}
}

func TestJobsThatSignAreInTheProtectedEnvironment(t *testing.T) {
	g := NewWithT(t)
	w := readWorkflow(g)
	for name, job := range w.Jobs {
		if writes(job.Permissions) {
			g.Expect(job.Environment).To(Equal("release"), name)
		}
	}
	g.Expect(w.Jobs["check"].Steps).To(ContainElement(HaveField("Run", `hack/check-on-main "$GITHUB_SHA" origin/main`)))
}
