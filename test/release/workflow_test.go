package release_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"
)

// workflow is the part of a workflow that is looked at.
type workflow struct {
	Defaults struct {
		Run struct{ Shell string }
	}
	Jobs map[string]struct {
		Permissions map[string]string
		Environment string
		Env         map[string]string
		Steps       []step
	}
}

// step is one of a job.
type step struct {
	Name string
	Uses string
	With map[string]any
	Run  string
}

// readWorkflow reads the workflow of the releases.
func readWorkflow(g Gomega) workflow {
	content, err := os.ReadFile(filepath.Join("..", "..", ".github", "workflows", "release.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	var w workflow
	g.Expect(yaml.Unmarshal(content, &w)).To(Succeed())
	return w
}

// stage is a directory in which a step of the workflow runs.
type stage struct {
	dir string
	env []string
}

// newStage makes a directory with stand-ins for programs: shell scripts by their paths.
// Each notes its name and arguments in the file "calls".
func newStage(t *testing.T, tag string, programs map[string]string) stage {
	g := NewWithT(t)
	s := stage{dir: t.TempDir()}
	for name, script := range programs {
		path := filepath.Join(s.dir, name)
		g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
		g.Expect(os.WriteFile(path, []byte("#!/bin/sh\necho \"$(basename \"$0\") $*\" >>\"$CALLS\"\n"+script+"\n"), 0o755)).To(Succeed())
	}
	s.env = append(os.Environ(), "TAG="+tag, "GITHUB_REPOSITORY=Infrado/headscale-operator", "CALLS="+filepath.Join(s.dir, "calls"),
		"PATH="+filepath.Join(s.dir, "path")+":"+os.Getenv("PATH"))
	return s
}

// run runs a step of the job that publishes, in the shell that GitHub takes, and returns
// what it printed and what it called.
func (s stage) run(t *testing.T, name string) (output, calls string, err error) {
	g := NewWithT(t)
	w := readWorkflow(g)
	shell := []string{"-e", "-c"}
	if w.Defaults.Run.Shell == "bash" {
		shell = []string{"--noprofile", "--norc", "-eo", "pipefail", "-c"}
	}
	for _, candidate := range w.Jobs["publish"].Steps {
		if candidate.Name != name {
			continue
		}
		g.Expect(candidate.Run).NotTo(ContainSubstring("${{"), "such a step cannot run here")
		command := exec.CommandContext(t.Context(), "bash", append(shell, candidate.Run)...)
		command.Dir, command.Env = s.dir, s.env
		printed, err := command.CombinedOutput()
		called, _ := os.ReadFile(filepath.Join(s.dir, "calls"))
		return string(printed), string(called), err
	}
	t.Fatalf("the workflow has no step %q", name)
	return "", "", nil
}

func TestTheChartIsSignedByItsDigest(t *testing.T) {
	g := NewWithT(t)
	s := newStage(t, "v0.2.0", map[string]string{
		"bin/helm4": "echo 'Pushed: ghcr.io/infrado/headscale-operator/charts/headscale-operator:0.2.0' >&2; echo 'Digest: sha256:abc' >&2", "path/cosign": "",
	})
	_, calls, err := s.run(t, "Push and sign the chart")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Split(strings.TrimSpace(calls), "\n")).To(HaveExactElements(
		"helm4 push dist/headscale-operator-0.2.0.tgz oci://ghcr.io/infrado/headscale-operator/charts",
		"cosign sign --yes ghcr.io/infrado/headscale-operator/charts/headscale-operator@sha256:abc"))
}

func TestAChartThatIsNotPushedFailsTheRelease(t *testing.T) {
	for name, helm := range map[string]string{
		"refused":   "echo 'Error: denied: no quota' >&2; exit 1",
		"no digest": "echo 'Pushed: but denied: no quota'",
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newStage(t, "v0.2.0", map[string]string{"bin/helm4": helm, "path/cosign": ""})
			output, calls, err := s.run(t, "Push and sign the chart")
			g.Expect(err).To(HaveOccurred())
			g.Expect(output).To(ContainSubstring("denied: no quota"), "what Helm said is to be read in the log")
			g.Expect(calls).NotTo(ContainSubstring("cosign"))
		})
	}
}

func TestAPreviewIsMarkedAsOne(t *testing.T) {
	for tag, preview := range map[string]bool{"v0.2.0": false, "v0.2.0-rc.1": true} {
		t.Run(tag, func(t *testing.T) {
			g := NewWithT(t)
			s := newStage(t, tag, map[string]string{"path/gh": "", "path/cosign": "", "hack/release-notes": "echo notes"})
			g.Expect(os.Mkdir(filepath.Join(s.dir, "dist"), 0o755)).To(Succeed())
			for _, file := range []string{
				"install.yaml", "headscale-operator-" + strings.TrimPrefix(tag, "v") + ".tgz",
				"kubectl-headscale_" + tag + "_linux_amd64.tar.gz", "krew-headscale.yaml",
			} {
				g.Expect(os.WriteFile(filepath.Join(s.dir, "dist", file), nil, 0o600)).To(Succeed())
			}
			output, calls, err := s.run(t, "Publish the release")
			g.Expect(err).NotTo(HaveOccurred(), output)
			g.Expect(strings.Contains(calls, "--prerelease")).To(Equal(preview), calls)
			// What docs/install.md tells users to download.
			g.Expect(calls).To(MatchRegexp(`gh release create %s --verify-tag .* install\.yaml headscale-operator-\S+\.tgz kubectl-headscale_\S+\.tar\.gz krew-headscale\.yaml checksums\.txt checksums\.txt\.sigstore\.json\n`, tag))
			g.Expect(filepath.Join(s.dir, "dist", "checksums.txt")).To(BeAnExistingFile())
		})
	}
}

func TestNothingThatPublishesTakesWhatOtherRunsCached(t *testing.T) {
	g := NewWithT(t)
	looked := 0
	for name, job := range readWorkflow(g).Jobs {
		for _, step := range job.Steps {
			g.Expect(step.Uses).NotTo(And(HavePrefix("actions/cache"), Satisfy(func(string) bool { return writes(job.Permissions) })), name)
			if strings.HasPrefix(step.Uses, "actions/setup-go@") && writes(job.Permissions) {
				g.Expect(step.With).To(HaveKeyWithValue("cache", false), name)
				looked++
			}
		}
	}
	g.Expect(looked).NotTo(BeZero())
}

// writes reports whether a job may change anything.
func writes(permissions map[string]string) bool {
	for _, permission := range permissions {
		if permission == "write" {
			return true
		}
	}
	return false
}

func TestTheDocumentedIdentityIsThisWorkflow(t *testing.T) {
	g := NewWithT(t)
	install, err := os.ReadFile(filepath.Join("..", "..", "docs", "install.md"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(install)).To(ContainSubstring("--certificate-identity https://github.com/infrado/headscale-operator/.github/workflows/release.yaml@refs/tags/v0.1.0"))
	signs := 0
	for _, job := range readWorkflow(g).Jobs {
		for _, step := range job.Steps {
			signs += strings.Count(step.Run, "cosign sign")
		}
	}
	g.Expect(signs).To(Equal(3), "the images, the chart, the checksums")
}
