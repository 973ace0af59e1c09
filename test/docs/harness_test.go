package docs_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = DescribeTable("What a block is",
	func(language, comment, text string, expected manner, complaint string) {
		i, err := readInstruction(block{language: language, comment: comment, text: text})
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

var _ = DescribeTable("What a transcript shows",
	func(shown, printed string, matches bool) {
		Expect(pattern(shown).MatchString(printed)).To(Equal(matches))
	},
	Entry("is what is printed", "yes\n", "yes\n", true),
	Entry("is not what is printed", "yes\n", "no\n", false),
	Entry("is more than what is printed", "a\nb\n", "a\n", false),
	Entry("is less than what is printed", "a\n", "a\nb\n", false),
	Entry("has columns of another width", "NAME  AGE\nhs    1m\n", "NAME    AGE\nhs      12s\n", true),
	Entry("has another time", "until 2027-02-21T22:13:05.986594Z\n", "until 2031-01-01T00:00:00Z\n", true),
	Entry("has no time", "until 2027-02-21T22:13:05Z\n", "until never\n", false),
	Entry("has another age, before a comma", "in 9d, at noon\n", "in 10d, at noon\n", true),
	Entry("has another prefix of a key", "key Kazn4vLRor2L.\n", "key aaaaaaaa-_3L.\n", true),
	Entry("has no prefix of a key", "key Kazn4vLRor2L.\n", "key none.\n", false),
	Entry("leaves the rest of a word out", "hskey-api-…\n", "hskey-api-012-345\n", true),
	Entry("leaves the rest of a word out, which is two", "hskey-api-…\n", "hskey-api-012 345\n", false),
	Entry("leaves lines out", "a\n…\nd\n", "a\nb\nc\nd\n", true),
	Entry("has a dot that is no other character", "a.b\n", "axb\n", false),
)

var _ = Describe("A page", func() {
	p := parsePage("docs/x.md", []byte("# A `b` c, d!\n\n[x](y.md#z) ![i](i.png)\n\n## Twice\n\n## Twice\n\n"+
		"<!-- test: skip because of that -->\n```sh\nfalse\n```\n\n- in a list:\n\n  ```console\n  $ echo a \\\n  > b\n  a b\n  $ true\n  ```\n"))

	It("is read with its anchors, links and blocks", func() {
		Expect(p.anchors).To(Equal([]string{"a-b-c-d", "twice", "twice-1"}))
		Expect(p.links).To(Equal([]link{{3, "y.md#z"}, {3, "i.png"}}))
		Expect(p.blocks).To(Equal([]block{
			{line: 11, language: "sh", text: "false\n", comment: "test: skip because of that"},
			{line: 17, language: "console", text: "$ echo a \\\n> b\na b\n$ true\n"},
		}))
		Expect(parseTranscript(p.blocks[1].text)).To(Equal([]exchange{{"echo a \\\nb\n", "a b\n"}, {"true\n", ""}}))
	})

	It("has links that are found to be broken", func() {
		Expect(brokenLink(p, link{target: "y.md#z"})).To(Equal("there is no such file"))
		Expect(brokenLink(p, link{target: "../README.md#no-such-heading"})).To(Equal("there is no such heading"))
		Expect(brokenLink(p, link{target: "/README.md"})).To(Equal("it is not relative to the page"))
		Expect(brokenLink(p, link{target: "../README.md#install"})).To(BeEmpty())
		Expect(brokenLink(p, link{target: "https://example.com"})).To(BeEmpty())
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
