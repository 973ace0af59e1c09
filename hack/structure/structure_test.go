package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// root is the project's directory.
const root = "../.."

func TestThisProject(t *testing.T) {
	g := NewWithT(t)
	var out bytes.Buffer
	g.Expect(run(t.Context(), &out, root, false)).To(Succeed())
	g.Expect(out.String()).To(MatchRegexp(`(?m)^ *hack/structure( +\d+){7} *$`))
	g.Expect(out.String()).To(MatchRegexp(`(?m)^  4 internal/apikey\n(      → \d .*\n)*      → 1 api/v1beta1$`))
	g.Expect(out.String()).To(MatchRegexp(`(?m)^test machinery below test/: \d{4} lines, at most 6850$`))
}

func TestTestMachinery(t *testing.T) {
	g := NewWithT(t)
	support := codePackage{path: "internal/x/xtest", lines: 9000, testLines: 9000}
	g.Expect(tooMuch([]codePackage{support, {path: "test/a", lines: 6849, testLines: 1}, {path: "test/b", lines: 1}})).To(Succeed())
	g.Expect(tooMuch([]codePackage{support, {path: "test/a", lines: 6849}, {path: "test/b", lines: 2}})).
		To(MatchError(ContainSubstring("below test/ are 6851 lines that are no tests, more than 6850")))
}

func TestNoTableOfLayers(t *testing.T) {
	g := NewWithT(t)
	directory := writeModule(t, "# Design\n", map[string]string{"upper": `import _ "example.com/m/lower"`, "lower": "// V is a value.\nvar V = 1\n"})
	for range 2 {
		var out bytes.Buffer
		g.Expect(run(t.Context(), &out, directory, false)).To(Succeed())
		g.Expect(out.String()).To(ContainSubstring("docs/design.md has no table of layers (| layer | packages | …):\n  - upper\n      → - lower\n"))
		g.Expect(os.RemoveAll(filepath.Join(directory, "docs"))).To(Succeed())
	}
}

// writeModule writes a module with a table of layers and some packages.
func writeModule(t *testing.T, table string, packages map[string]string) string {
	g := NewWithT(t)
	directory := t.TempDir()
	files := map[string]string{"go.mod": "module example.com/m\n\ngo 1.26\n", "docs/design.md": table}
	for path, code := range packages {
		files[path+"/code.go"] = "package " + filepath.Base(path) + "\n\n" + code
	}
	for path, content := range files {
		target := filepath.Join(directory, path)
		g.Expect(os.MkdirAll(filepath.Dir(target), 0o755)).To(Succeed())
		g.Expect(os.WriteFile(target, []byte(content), 0o600)).To(Succeed())
	}
	return directory
}

func TestViolations(t *testing.T) {
	const layerTable = "| layer | package |\n|---|---|\n| 2 | `upper`, `beside` |\n| 1 | `lower` |\n"
	const lower, beside = "// V is a value.\nvar V = 1\n", "// V is a value.\nvar V = 2\n"
	for name, test := range map[string]struct {
		table    string
		packages map[string]string
		want     string
	}{
		"an import that goes down": {
			layerTable, map[string]string{"lower": lower, "beside": beside, "upper": `import _ "example.com/m/lower"`}, "",
		},
		"an import that goes up": {
			layerTable, map[string]string{"upper": beside, "beside": beside, "lower": `import _ "example.com/m/upper"`},
			"lower (layer 1) imports upper (layer 2): an import goes down",
		},
		"an import within a layer": {
			layerTable, map[string]string{"lower": lower, "beside": beside, "upper": `import _ "example.com/m/beside"`},
			"upper (layer 2) imports beside (layer 2): an import goes down",
		},
		"a package without a layer": {
			layerTable, map[string]string{"lower": lower, "beside": beside, "upper": beside, "extra": lower},
			"docs/design.md has no layer for extra: add it to the table",
		},
		"a layer without its package": {
			layerTable, map[string]string{"lower": lower, "upper": beside},
			"docs/design.md has a layer for beside, which does not exist: remove it from the table",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			err := run(t.Context(), io.Discard, writeModule(t, test.table, test.packages), false)
			if test.want == "" {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				g.Expect(err).To(MatchError(ContainSubstring(test.want)))
			}
		})
	}
}

func TestMeasures(t *testing.T) {
	g := NewWithT(t)
	directory := writeModule(t, "| 1 | `p` |\n", map[string]string{"p": "func one() {\n}\n\nfunc three() {\n\t_ = 1\n\t_ = 2\n\t_ = 3\n}\n"})
	g.Expect(os.WriteFile(filepath.Join(directory, "p", "code_test.go"), []byte("package p\n\nvar _ = one\n"), 0o600)).To(Succeed())
	packages, err := readPackages(t.Context(), directory)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(packages).To(ConsistOf(codePackage{path: "p", lines: 10, files: 1, functions: []int{1, 3}, testLines: 3}))
}

func TestTestTimes(t *testing.T) {
	g := NewWithT(t)
	log := filepath.Join(t.TempDir(), "log")
	const text = "ok  \texample.com/m/a\t1.250s\n--- FAIL: TestX (0.00s)\nFAIL\texample.com/m/b\t12.000s\n" +
		"?   \texample.com/m/c\t[no test files]\nok  \texample.com/m/d\t(cached)\nFAIL\texample.com/m/e [build failed]\n"
	g.Expect(os.WriteFile(log, []byte(text), 0o600)).To(Succeed())
	var out bytes.Buffer
	g.Expect(printTestTimes(&out, log)).To(Succeed())
	g.Expect(out.String()).To(Equal("\ntests, by package:\n     12.0 s  example.com/m/b\n      1.2 s  example.com/m/a\n"))
	g.Expect(printTestTimes(&out, log+".missing")).NotTo(Succeed())
}

// TestWhereDoIChange keeps the table in CONTRIBUTING.md true: what it names exists, and no
// likely change takes more than five places.
func TestWhereDoIChange(t *testing.T) {
	g := NewWithT(t)
	text, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	g.Expect(err).NotTo(HaveOccurred())
	_, section, found := strings.Cut(string(text), "\n## Where do I change …\n")
	g.Expect(found).To(BeTrue())
	section, _, _ = strings.Cut(section, "\n## ")
	rows := 0
	for line := range strings.Lines(section) {
		change, places, isRow := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !isRow || change == "…" {
			continue
		}
		rows++
		paths := quoted.FindAllStringSubmatch(places, -1)
		g.Expect(paths).NotTo(BeEmpty(), change)
		g.Expect(len(paths)).To(BeNumerically("<=", 5), change)
		for _, path := range paths {
			matches, err := filepath.Glob(filepath.Join(root, path[1]))
			g.Expect(err).NotTo(HaveOccurred(), change)
			g.Expect(matches).NotTo(BeEmpty(), "%s: %s", change, path[1])
		}
	}
	g.Expect(rows).To(BeNumerically(">=", 12))
}
