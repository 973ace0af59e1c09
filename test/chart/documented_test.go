package chart_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/pages"
)

// documented are the blocks in a language that stand under a heading of docs/install.md.
func documented(language, heading string) []string {
	GinkgoHelper()
	page, err := pages.Read(root, "docs/install.md")
	Expect(err).NotTo(HaveOccurred())
	blocks, err := page.Below(heading, language)
	Expect(err).NotTo(HaveOccurred())
	return blocks
}
