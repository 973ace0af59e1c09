package policy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/pages"
)

// kubectlOf answers with what is in a file, and makes a ConfigMap only of a file that there is.
const kubectlOf = `#!/bin/sh
case "$1" in
headscale) cat report.json ;;
create) [ -e policy.hujson ] && touch configmap ;;
esac
`

// In a policy file, null and nothing are a policy without rules: the commands of the pages write none.
func TestTheWayBackWritesNoPolicyWithoutRules(t *testing.T) {
	if _, err := exec.LookPath("jq"); err != nil {
		t.Skip("there is no jq on this machine")
	}
	for path, heading := range map[string]string{
		"docs/policy.md": "An upgrade and the stored policy",
		"docs/runbooks/HeadscalePolicyNotInForce.md": "Mitigation",
	} {
		for report, written := range map[string]string{
			`{"joined": null}`:               "",
			``:                               "",
			`{"joined": "{\"acls\": []}\n"}`: `{"acls": []}`,
		} {
			g := NewWithT(t)
			page, err := pages.Read(filepath.Join("..", "..", ".."), path)
			g.Expect(err).NotTo(HaveOccurred())
			blocks, err := page.Below(heading, "sh")
			g.Expect(err).NotTo(HaveOccurred())
			dir := t.TempDir()
			g.Expect(os.WriteFile(filepath.Join(dir, "kubectl"), []byte(kubectlOf), 0o700)).To(Succeed())
			g.Expect(os.WriteFile(filepath.Join(dir, "report.json"), []byte(report), 0o600)).To(Succeed())
			command := exec.CommandContext(t.Context(), "sh", "-c", strings.Join(blocks, "\n"))
			command.Dir, command.Env = dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			output, _ := command.CombinedOutput() // as in a terminal, where the next line follows an error
			if written == "" {
				g.Expect(filepath.Join(dir, "policy.hujson")).NotTo(BeAnExistingFile(), "%s: %s: %s", path, report, output)
				g.Expect(filepath.Join(dir, "configmap")).NotTo(BeAnExistingFile(), path)
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, "policy.hujson"))
			g.Expect(err).NotTo(HaveOccurred(), string(output))
			g.Expect(strings.TrimSpace(string(text))).To(Equal(written), path)
		}
	}
}
