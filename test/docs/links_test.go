package docs_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/pages"
)

var _ = Describe("The pages", func() {
	It("say of every block what it is", func() {
		for _, p := range allPages {
			for _, b := range p.Blocks {
				_, err := readInstruction(b)
				Expect(err).NotTo(HaveOccurred(), "%s, %s", p.Path, b.Name())
			}
		}
	})

	It("have links that lead somewhere", func() {
		var broken []string
		for _, p := range allPages {
			for _, l := range p.Links {
				if why := brokenLink(p, l); why != "" {
					broken = append(broken, p.Path+": "+l.Target+": "+why)
				}
			}
		}
		Expect(broken).To(BeEmpty())
	})

	It("are all at most three clicks away from the README", func() {
		clicks := clicksFrom("README.md")
		for _, p := range allPages {
			Expect(clicks).To(HaveKeyWithValue(p.Path, BeNumerically("<=", 3)), p.Path)
		}
	})

	It("are found by task: the table of contents has each of them, but for lists of their own", func() {
		contents := allPages[slices.IndexFunc(allPages, func(p pages.Page) bool { return p.Path == "docs/README.md" })]
		var linked []string
		for _, l := range contents.Links {
			target, _, _ := strings.Cut(l.Target, "#")
			linked = append(linked, path.Join("docs", target))
		}
		for _, p := range allPages {
			if path.Dir(p.Path) == "docs/runbooks" || path.Dir(p.Path) == "docs/decisions" {
				Expect(linked).To(ContainElement(HavePrefix(path.Dir(p.Path))))
			} else if strings.HasPrefix(p.Path, "docs/") && p.Path != contents.Path {
				Expect(linked).To(ContainElement(p.Path))
			}
		}
		drawn := slices.ContainsFunc(contents.Blocks, func(b pages.Block) bool { return b.Language == "mermaid" })
		Expect(drawn).To(BeTrue(), "a picture of the whole")
	})

	It("name commands of make that there are", func() {
		makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
		Expect(err).NotTo(HaveOccurred())
		command := regexp.MustCompile("(?:^|[`\\s(]|&& )make ((?:[A-Z0-9_]+=\\S+ )*)([a-z][a-z0-9-]*)")
		for _, p := range allPages {
			for _, text := range codeOf(p) {
				for _, match := range command.FindAllStringSubmatch(text, -1) {
					Expect(string(makefile)).To(MatchRegexp(`(?m)^`+match[2]+`:`), "%s: make %s", p.Path, match[2])
				}
			}
		}
	})

	It("name, for what runs elsewhere, what runs it", func() {
		elsewhere := readAll(".ci/run", ".github/workflows/*.yaml")
		suite := readAll("test/e2e/*_test.go")
		for _, p := range allPages {
			for _, b := range p.Blocks {
				i, err := readInstruction(b)
				Expect(err).NotTo(HaveOccurred())
				switch i.manner {
				case e2e:
					Expect(suite).To(MatchRegexp(`It\(.*`+regexp.QuoteMeta(i.words)), "%s, %s", p.Path, b.Name())
				case ci:
					for line := range strings.Lines(b.Text) {
						line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
						Expect(elsewhere).To(ContainSubstring(strings.TrimSpace(line)), "%s, %s", p.Path, b.Name())
					}
				}
			}
		}
	})

	It("are followed here but for some blocks", func() {
		count := map[manner]int{}
		for _, p := range allPages {
			for _, b := range p.Blocks {
				i, err := readInstruction(b)
				Expect(err).NotTo(HaveOccurred())
				count[i.manner]++
				if i.words != "" && !i.runsHere() {
					AddReportEntry(p.Path+", "+b.Name(), ReportEntryVisibilityAlways, string(i.manner)+": "+i.words)
				}
			}
		}
		AddReportEntry("blocks", ReportEntryVisibilityAlways, count)
		Expect(count[commands]).To(BeNumerically(">", 0))
	})
})

// clicksFrom returns how many links lead from a page to each other one, at least. GitHub shows a
// directory as a list of its files, which takes a click more.
func clicksFrom(start string) map[string]int {
	clicks := map[string]int{start: 0}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		for _, target := range linksOf(queue[0]) {
			if _, known := clicks[target]; !known {
				clicks[target] = clicks[queue[0]] + 1
				queue = append(queue, target)
			}
		}
	}
	return clicks
}

// linksOf is where the links of a page, or of the list of files of a directory, lead.
func linksOf(name string) []string {
	var targets []string
	for _, p := range allPages {
		if path.Dir(p.Path) == name {
			targets = append(targets, p.Path)
		}
		if p.Path != name {
			continue
		}
		for _, l := range p.Links {
			if target, _, _ := strings.Cut(l.Target, "#"); target != "" && !external.MatchString(target) {
				targets = append(targets, path.Join(path.Dir(p.Path), target))
			}
		}
	}
	return targets
}

// external matches links that lead out of the repository.
var external = regexp.MustCompile(`^[a-z][a-z+.-]*:`)

// brokenLink says why a link leads nowhere, or "". GitHub's own pages are no files.
func brokenLink(p pages.Page, l pages.Link) string {
	if external.MatchString(l.Target) {
		return ""
	}
	target, anchor, _ := strings.Cut(l.Target, "#")
	file := p.Path
	if target != "" {
		file = path.Join(path.Dir(p.Path), target)
	}
	if strings.HasPrefix(target, "/") || strings.HasPrefix(file, "../") {
		return "it is not relative to the page"
	}
	if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
		return "there is no such file"
	}
	if anchor == "" {
		return ""
	}
	i := slices.IndexFunc(allPages, func(other pages.Page) bool { return other.Path == file })
	if i < 0 || !slices.Contains(allPages[i].Anchors, anchor) {
		return "there is no such heading"
	}
	return ""
}

// inlineCode matches code within a sentence.
var inlineCode = regexp.MustCompile("`[^`\n]+`")

// codeOf is all code of a page.
func codeOf(p pages.Page) []string {
	texts := inlineCode.FindAllString(p.Source, -1)
	for _, b := range p.Blocks {
		texts = append(texts, b.Text)
	}
	return texts
}

// readAll is the text of all files that match.
func readAll(patterns ...string) string {
	GinkgoHelper()
	var all strings.Builder
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		Expect(err).NotTo(HaveOccurred())
		for _, file := range files {
			text, err := os.ReadFile(file)
			Expect(err).NotTo(HaveOccurred())
			all.Write(text)
		}
	}
	return all.String()
}

var _ = Describe("docs/troubleshooting.md", func() {
	It("explains every reason that the API Key Manager logs", func() {
		source := readAll("internal/rotation/reasons.go", "internal/apikey/reasons.go")
		reasons := regexp.MustCompile(`Reason = "(\w+)"`).FindAllStringSubmatch(source, -1)
		Expect(len(reasons)).To(BeNumerically(">", 20))
		page := readAll("docs/troubleshooting.md")
		for _, reason := range reasons {
			Expect(page).To(ContainSubstring("`"+reason[1]+"`"), "internal/apikey/reasons.go has it")
		}
	})
})
