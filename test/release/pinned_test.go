package release_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestInputsArePinnedOrListed(t *testing.T) {
	printed, err := exec.CommandContext(t.Context(), filepath.Join("..", "..", "hack", "check-pinned")).CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(printed))
}

func TestCheckPinned(t *testing.T) {
	commit, digest := strings.Repeat("0123456789", 4), "sha256:"+strings.Repeat("01234567", 8)
	for name, test := range map[string]struct{ uses, base, refused string }{
		"all pinned":         {"a/b@" + commit + " # v1.2.3", "golang:1@" + digest, ""},
		"listed":             {"listed/action@v1", "listed:1", ""},
		"a local action":     {"./.github/actions/a", "golang:1@" + digest, ""},
		"an action by tag":   {"a/b@v1.2.3", "golang:1@" + digest, "a/b@v1.2.3 is not pinned"},
		"a quoted action":    {`"a/b@main"`, "golang:1@" + digest, "a/b@main is not pinned"},
		"a short commit":     {"a/b@0123456", "golang:1@" + digest, "a/b@0123456 is not pinned"},
		"a newer listed tag": {"listed/action@v2", "golang:1@" + digest, "listed/action@v2 is not pinned"},
		"a container by tag": {"docker://a:1", "golang:1@" + digest, "docker://a:1 is not pinned"},
		"a base by tag":      {"a/b@" + commit, "golang:1.26", "golang:1.26 is not pinned"},
	} {
		for _, line := range []string{"ARG GO_IMAGE=%s\nFROM --platform=${BUILDPLATFORM:-linux} ${GO_IMAGE} AS build\n", "FROM --platform=linux/amd64 %s AS build\n"} {
			t.Run(name, func(t *testing.T) {
				g := NewWithT(t)
				dir := t.TempDir()
				write(t, dir, ".github/workflows/a.yaml", "jobs:\n  a:\n    steps:\n      - uses: "+test.uses+"\n      - name: b\n        uses: listed/action@v1\n")
				write(t, dir, "Dockerfile", strings.ReplaceAll(line, "%s", test.base))
				write(t, dir, "hack/unpinned", "listed/action@v1\nlisted:1\n")
				printed, err := exec.CommandContext(t.Context(), filepath.Join("..", "..", "hack", "check-pinned"), dir).CombinedOutput()
				g.Expect(err != nil).To(Equal(test.refused != ""), string(printed))
				g.Expect(string(printed)).To(ContainSubstring(test.refused))
			})
		}
	}
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
