package docs_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/pages"
)

var _ = DescribeTable("What a block is",
	func(language, comment, text string, expected manner, complaint string) {
		i, err := readInstruction(pages.Block{Language: language, Comment: comment, Text: text})
		if complaint != "" {
			Expect(err).To(MatchError(ContainSubstring(complaint)))
			return
		}
		Expect(err).NotTo(HaveOccurred())
		Expect(i.manner).To(Equal(expected))
	},
	Entry("commands", "sh", "", "kubectl get pods", commands, ""),
	Entry("commands, and a comment about something else", "sh", "a table follows", "kubectl get pods", commands, ""),
	Entry("a transcript", "console", "", "$ date", transcript, ""),
	Entry("a manifest", "yaml", "", "kind: Secret", manifest, ""),
	Entry("skipped", "sh", "test: skip because it needs a radio", "tune in", skip, ""),
	Entry("skipped without a reason", "sh", "test: skip", "tune in", manner(""), "none of those"),
	Entry("a part of a Headscale", "yaml", "test: at spec.config", "derp: {}", partOf, ""),
	Entry("a part of a Headscale that is no YAML", "sh", "test: at spec.config", "derp: {}", manner(""), "is for blocks of"),
	Entry("run elsewhere", "sh", `test: e2e "leaves nothing"`, "helm uninstall x", e2e, ""),
	Entry("without a language", "", "", "boxes", manner(""), "says not what to do"),
	Entry("in a language that nobody runs", "hcl", "", "x = 1", manner(""), "says not what to do"),
	Entry("the whole test suite", "sh", "", "make test", manner(""), "run for long"),
)

var _ = Describe("A link", func() {
	p := pages.Page{Path: "docs/x.md"}

	It("is found to be broken", func() {
		Expect(brokenLink(p, pages.Link{Target: "y.md#z"})).To(Equal("there is no such file"))
		Expect(brokenLink(p, pages.Link{Target: "../README.md#no-such-heading"})).To(Equal("there is no such heading"))
		Expect(brokenLink(p, pages.Link{Target: "/README.md"})).To(Equal("it is not relative to the page"))
		Expect(brokenLink(p, pages.Link{Target: "../README.md#install"})).To(BeEmpty())
		Expect(brokenLink(p, pages.Link{Target: "https://example.com"})).To(BeEmpty())
	})
})

var _ = DescribeTable("Values of a chart",
	func(values map[string]any, unknown ...string) {
		known := schema{Type: "object", Properties: map[string]schema{
			"on":    {Type: "boolean"},
			"inner": {Type: "object", Properties: map[string]schema{"name": {Type: "string"}}},
			"any":   {Type: "object"},
		}}
		Expect(unknownValues(known, values, "")).To(ConsistOf(unknown))
	},
	Entry("that it has", map[string]any{"on": true, "inner": map[string]any{"name": "x"}, "any": map[string]any{"a": 1}}),
	Entry("that it does not have", map[string]any{"off": true}, "off is no value of the chart"),
	Entry("that it does not have further down", map[string]any{"inner": map[string]any{"nam": "x"}}, "inner.nam is no value of the chart"),
	Entry("that are something else", map[string]any{"on": "yes", "inner": true},
		"on must be of the type boolean", "inner must be of the type object"),
)
