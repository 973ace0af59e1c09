package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestFlags(t *testing.T) {
	g := NewWithT(t)
	s, err := parseFlags([]string{"--sizes=500, 1,20,20", "--rest=3m", "--images=/somewhere"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.sizes).To(Equal([]int{1, 20, 500}))
	g.Expect(s.restWith(500)).To(Equal(3 * time.Minute))
	g.Expect(s.restWith(20)).To(Equal(90 * time.Second))
	g.Expect(s.subjects).To(HaveLen(len(subjects)))
	g.Expect(s.images).To(Equal("/somewhere"))

	s, err = parseFlags([]string{"--only=operator"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.subjects).To(HaveLen(1))
	g.Expect(filepath.IsAbs(s.images)).To(BeTrue())
	g.Expect(s.images).To(HaveSuffix("/out/images"))
}

func TestFlagsThatCannotBeUsed(t *testing.T) {
	for argument, sentence := range map[string]string{
		"--sizes=1,none":       `--sizes has "none"`,
		"--sizes=0":            `--sizes has "0"`,
		"--only=operator,moon": `--only has "moon"`,
		"again":                `unexpected argument "again"`,
	} {
		_, err := parseFlags([]string{argument})
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(sentence)))
	}
}

func TestTablesAreWrittenIntoTheDocument(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "document.md")
	g.Expect(os.WriteFile(path, []byte("A\n<!-- table: operator -->\n<!-- end -->\nB\n"), 0o600)).To(Succeed())
	g.Expect(write(path, "operator", "| new |")).To(Succeed())
	g.Expect(os.ReadFile(path)).To(BeEquivalentTo("A\n<!-- table: operator -->\n| new |\n<!-- end -->\nB\n"))
	g.Expect(write(path, "sidecar", "")).To(MatchError(ContainSubstring(path + ": the document has no place")))
	g.Expect(write("", "operator", "")).To(Succeed())
}

func TestTheProcessorIsNamed(t *testing.T) {
	g := NewWithT(t)
	g.Expect(processorModel("processor\t: 0\nmodel name\t: A  processor\t2\nmodel name: another\n")).To(Equal("A processor 2"))
	g.Expect(processorModel("processor\t: 0\n")).To(Equal("unknown processor"))
	g.Expect(measuredOn(thisMachine(t.Context(), "."))).To(
		MatchRegexp(`^Measured on \d{4}-\d\d-\d\d, commit .+, .+, \d+ cores, load average [0-9.]+ before, go1\..+\.$`))
}

func TestTheDocumentHasAPlaceForEverySubject(t *testing.T) {
	names := []string{summaryTable}
	for _, subject := range subjects {
		names = append(names, subject.name)
	}
	for _, name := range names {
		text, err := os.ReadFile("../../docs/performance.md")
		g := NewWithT(t)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(text)).To(ContainSubstring("<!-- table: " + name + " -->\n"))
	}
}
