package release_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// clone copies files of the project into a directory of its own, in which others are
// written or changed.
func clone(t *testing.T, paths ...string) string {
	g := NewWithT(t)
	dir := t.TempDir()
	for _, path := range paths {
		content, err := os.ReadFile(filepath.Join("..", "..", path))
		g.Expect(err).NotTo(HaveOccurred())
		write(t, dir, path, string(content))
	}
	return dir
}

// write writes a file that can be run.
func write(t *testing.T, dir, path, content string) {
	g := NewWithT(t)
	target := filepath.Join(dir, path)
	g.Expect(os.MkdirAll(filepath.Dir(target), 0o755)).To(Succeed())
	g.Expect(os.WriteFile(target, []byte(content), 0o755)).To(Succeed())
}

func TestReleaseNotes(t *testing.T) {
	dir := clone(t, "hack/release-notes")
	write(t, dir, "CHANGELOG.md", `# Changelog

## Unreleased

## v0.3.0-dev.1 - 2026-12-01

A development version.

## [v0.2.0-rc.1]

A preview.

## [0.2.0] - 2026-11-30

Vivid.

### Added

- Something.

## 0.1.0

The first.
`)
	for version, want := range map[string]string{
		"v0.3.0-dev.1": "A development version.",
		"v0.2.0-rc.1":  "A preview.",
		"v0.2.0":       "Vivid.\n\n### Added\n\n- Something.",
		"0.1.0":        "The first.",
		"v0.4.0":       `CHANGELOG.md has no section "## 0.4.0": write it before the release`,
		"Unreleased":   `CHANGELOG.md has no section "## Unreleased": write it before the release`,
	} {
		t.Run(version, func(t *testing.T) {
			g := NewWithT(t)
			printed, err := exec.CommandContext(t.Context(), filepath.Join(dir, "hack", "release-notes"), version).CombinedOutput()
			g.Expect(strings.TrimSpace(string(printed))).To(Equal(want))
			g.Expect(err != nil).To(Equal(strings.HasPrefix(want, "CHANGELOG")))
		})
	}
}

// version matches the lines that name the version of the images and of the chart.
var version = regexp.MustCompile(`(?m)^( *newTag: v|version: |appVersion: v| *image: ghcr[.]io/infrado/headscale-operator/[a-z-]+:v).*$`)

// setVersion makes a file one of v0.1.0, whatever version it is of.
func setVersion(t *testing.T, dir, path string) {
	g := NewWithT(t)
	content, err := os.ReadFile(filepath.Join(dir, path))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(len(version.FindAll(content, -1))).To(BeElementOf(2, 4))
	write(t, dir, path, version.ReplaceAllString(string(content), "${1}0.1.0"))
}

func TestCheckRelease(t *testing.T) {
	const chart, manager = "charts/headscale-operator/Chart.yaml", "config/manager/kustomization.yaml"
	for name, test := range map[string]struct{ file, from, to, complaint string }{
		"all as it should be":   {},
		"no section":            {"CHANGELOG.md", "## 0.1.0", "## 0.0.9", "CHANGELOG.md has no section"},
		"the chart's version":   {chart, "\nversion: 0.1.0", "\nversion: 0.0.9", `Chart.yaml is not that of v0.1.0: write "version: 0.1.0"`},
		"the hub's images":      {chart, "operator/operator:v0.1.0", "operator/operator:v0.0.9", `Chart.yaml is not that of v0.1.0: write "image: ghcr.io/infrado/headscale-operator/operator:v0.1.0"`},
		"the chart's images":    {chart, "\nappVersion: v0.1.0", "\nappVersion: v0.0.9", `Chart.yaml is not that of v0.1.0: write "appVersion: v0.1.0"`},
		"the manifests' images": {manager, "newTag: v0.1.0", "newTag: v0.0.9", `kustomization.yaml is not that of v0.1.0: write "newTag: v0.1.0"`},
		"one tag that goes on":  {manager, "  newTag: v0.1.0\n", "  newTag: v0.1.0-rc.1\n", `write "newTag: v0.1.0"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := clone(t, "hack/check-release", "hack/release-notes", chart, manager)
			write(t, dir, "CHANGELOG.md", "# Changelog\n\n## 0.1.0\n\nThe first.\n")
			setVersion(t, dir, chart)
			setVersion(t, dir, manager)
			if test.file != "" {
				content, err := os.ReadFile(filepath.Join(dir, test.file))
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(string(content)).To(ContainSubstring(test.from))
				write(t, dir, test.file, strings.Replace(string(content), test.from, test.to, 1))
			}
			printed, err := exec.CommandContext(t.Context(), filepath.Join(dir, "hack", "check-release"), "v0.1.0").CombinedOutput()
			g.Expect(err != nil).To(Equal(test.complaint != ""), string(printed))
			g.Expect(string(printed)).To(ContainSubstring(test.complaint))
		})
	}
}
