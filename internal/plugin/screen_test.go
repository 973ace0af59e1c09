package plugin

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	. "github.com/onsi/gomega"
)

// variables is a process environment in a map.
func variables(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestWhatIsNoTerminal(t *testing.T) {
	g := NewWithT(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(file.Close()).To(Succeed()) }()
	g.Expect(newScreen(file, variables(map[string]string{"TERM": "xterm", "LANG": "en_GB.UTF-8"}))).To(Equal(screen{unicode: true}))
	g.Expect(newScreen(&bytes.Buffer{}, variables(nil))).To(Equal(screen{}))
}

func TestLocales(t *testing.T) {
	for name, test := range map[string]struct {
		variables map[string]string
		unicode   bool
	}{
		"none":                        {nil, false},
		"POSIX":                       {map[string]string{"LANG": "C"}, false},
		"UTF-8":                       {map[string]string{"LANG": "de_DE.UTF-8"}, true},
		"UTF-8 as glibc writes it":    {map[string]string{"LC_CTYPE": "C.utf8"}, true},
		"LC_ALL comes first":          {map[string]string{"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, false},
		"an empty one does not count": {map[string]string{"LC_ALL": "", "LANG": "de_DE.UTF-8"}, true},
		"Latin-1":                     {map[string]string{"LANG": "de_DE.ISO-8859-1"}, false},
		"the terminal of Windows":     {map[string]string{"WT_SESSION": "1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(speaksUnicode(variables(test.variables))).To(Equal(test.unicode))
		})
	}
}

func TestBars(t *testing.T) {
	g := NewWithT(t)
	for part, want := range map[float64]string{-1: "[..........]", 0: "[..........]", 0.001: "[#.........]", 0.5: "[#####.....]", 0.999: "[#########.]", 1: "[##########]", 7: "[##########]"} {
		g.Expect(screen{}.bar(part, 10)).To(Equal(want))
		g.Expect(utf8.RuneCountInString(screen{unicode: true}.bar(part, 10))).To(Equal(10))
	}
}

func TestLinesFitTheScreen(t *testing.T) {
	message := strings.Repeat("a sentence for people that is long, ", 10)
	for _, width := range []int{40, 80, 120} {
		g := NewWithT(t)
		s := screen{width: width}
		var out bytes.Buffer
		s.table(&out, [][]cell{headings("ONE", "TWO", "THREE"), {{"first", plain}, {strings.Repeat("x", 20), plain}, {message, plain}}, {{"f", plain}, {"y", plain}, {"short", plain}}})
		s.fields(&out, []field{{"Label", message, plain}, {"L", "short", plain}})
		for line := range strings.Lines(out.String()) {
			g.Expect(len(strings.TrimRight(line, "\n"))).To(BeNumerically("<=", width), line)
		}
		g.Expect(strings.Count(strings.Join(strings.Fields(out.String()), " "), strings.TrimSpace(message))).To(Equal(2), "nothing is left out")
	}
}

func TestTextsWithoutUnicode(t *testing.T) {
	g := NewWithT(t)
	g.Expect(screen{}.text("“a” – b… ü 界")).To(Equal(`"a" - b... ? ?`))
	g.Expect(screen{unicode: true}.text("“a” – b… ü 界")).To(Equal("“a” – b… ü 界"))
	g.Expect(oneLine("a\x1b[31m\n\tb\r\u0085c\x7f")).To(Equal("a b c"))
}

func TestProgressOnATerminal(t *testing.T) {
	g := NewWithT(t)
	var out bytes.Buffer
	clock := now
	p := &progress{out: &out, screen: screen{live: true, width: 50}, now: func() time.Time { return clock }}
	p.begin("Asked.")
	clock = clock.Add(3 * time.Second)
	p.waiting(stageAsked)
	p.end()
	g.Expect(out.String()).To(Equal(clearLine + "Asked.\n" + clearLine + "Waiting for the operator to forward the reques..." + clearLine))

	out.Reset()
	p.screen = screen{}
	p.begin("Asked.")
	p.waiting(stageAsked)
	p.end()
	g.Expect(out.String()).To(Equal("Asked.\n"), "what is no terminal gets the lines that stay, and nothing else")
}
