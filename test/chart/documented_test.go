package chart_test

import (
	"os"
	"path/filepath"
	"regexp"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// documented are the blocks in a language that stand under a heading of docs/install.md.
func documented(language, heading string) []string {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join(root, "docs", "install.md"))
	Expect(err).NotTo(HaveOccurred())
	section := regexp.MustCompile(`(?ms)^##+ ` + regexp.QuoteMeta(heading) + `$(.*?)(^##|\z)`).FindSubmatch(content)
	Expect(section).NotTo(BeNil(), "docs/install.md has no heading %q", heading)
	var blocks []string
	for _, block := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(section[1], -1) {
		blocks = append(blocks, string(block[1]))
	}
	Expect(blocks).NotTo(BeEmpty(), "nothing in %s under %q", language, heading)
	return blocks
}
