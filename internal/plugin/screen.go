package plugin

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/util/duration"
)

// screen is what a text is written for.
type screen struct {
	// width is the number of columns; 0: as many as the text needs.
	width int
	// unicode is whether characters other than ASCII can be shown.
	unicode bool
	// colour is whether escape sequences for colours can be shown.
	colour bool
	// live is whether a line can be overwritten.
	live bool
}

// minWidth is the narrowest screen that lines are fitted to, in columns.
const minWidth = 40

// newScreen looks at where a text goes to, and at the environment.
func newScreen(out io.Writer, getenv func(string) string) screen {
	s := screen{unicode: speaksUnicode(getenv)}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return s
	}
	capable := getenv("TERM") != "dumb" && (runtime.GOOS != "windows" || getenv("WT_SESSION") != "")
	s.live = capable
	s.colour = capable && getenv("NO_COLOR") == ""
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		s.width = max(width, minWidth)
	}
	return s
}

// speaksUnicode reports, by the locale, whether the terminal reads UTF-8.
func speaksUnicode(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := getenv(name); locale != "" {
			locale = strings.ToLower(locale)
			return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
		}
	}
	return getenv("WT_SESSION") != ""
}

// style is how a text stands out: the parameter of the escape sequence.
type style string

// Styles, by ECMA-48 "select graphic rendition".
const (
	plain  style = ""
	strong style = "1"
	faint  style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// paint gives a text a style where colours can be shown.
func (s screen) paint(as style, text string) string {
	if !s.colour || as == plain || text == "" {
		return text
	}
	return "\x1b[" + string(as) + "m" + text + "\x1b[0m"
}

// inASCII replaces the characters of the operator's messages that are not ASCII.
var inASCII = strings.NewReplacer("…", "...", "“", `"`, "”", `"`, "‘", "'", "’", "'", "–", "-", "—", "-")

// text is a text with what can be shown.
func (s screen) text(text string) string {
	if s.unicode {
		return text
	}
	return strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, inASCII.Replace(text))
}

// cut shortens a text to a number of columns.
func (s screen) cut(text string, columns int) string {
	if utf8.RuneCountInString(text) <= columns {
		return text
	}
	end := s.text("…")
	keep := max(columns-utf8.RuneCountInString(end), 0)
	return string([]rune(text)[:keep]) + end
}

// bar shows a part of a whole in a number of columns: all of them only for the whole, and
// at least one for a part that is not nothing.
func (s screen) bar(part float64, columns int) string {
	full := int(part * float64(columns))
	if part > 0 {
		full = max(full, 1)
	}
	full = min(max(full, 0), columns)
	if s.unicode {
		return strings.Repeat("█", full) + strings.Repeat("░", columns-full)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", columns-full) + "]"
}

// cell is one text of a table.
type cell struct {
	text string
	as   style
}

// gap is between two columns of a table.
const gap = "  "

// table writes rows with their columns aligned.
func (s screen) table(out io.Writer, rows [][]cell) {
	var widths []int
	for _, row := range rows {
		for i, c := range row[:len(row)-1] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(s.text(c.text)))
		}
	}
	for _, row := range rows {
		s.row(out, row, widths)
	}
}

// row writes one row. A last cell that is too long for the line goes on below where it
// begins, or on lines of its own where it begins too far to the right.
func (s screen) row(out io.Writer, row []cell, widths []int) {
	var line strings.Builder
	used := 0
	for i, c := range row[:len(row)-1] {
		text := s.text(c.text)
		padding := max(widths[i]-utf8.RuneCountInString(text), 0)
		line.WriteString(s.paint(c.as, text) + strings.Repeat(" ", padding) + gap)
		used += utf8.RuneCountInString(text) + padding + len(gap)
	}
	last := row[len(row)-1]
	text := s.text(last.text)
	if s.width > 0 && s.width-used < narrowest && utf8.RuneCountInString(text) > s.width-used {
		used = len(gap)
		line.WriteString("\n" + gap)
	}
	for i, part := range s.wrap(text, s.width-used) {
		if i > 0 {
			line.WriteString("\n" + strings.Repeat(" ", used))
		}
		line.WriteString(s.paint(last.as, part))
	}
	for part := range strings.SplitSeq(line.String(), "\n") {
		_, _ = fmt.Fprintln(out, strings.TrimRight(part, " "))
	}
}

// narrowest is how many columns the last cell of a row must have beside the others.
const narrowest = 30

// headings are the first row of a table.
func headings(names ...string) []cell {
	row := make([]cell, len(names))
	for i, name := range names {
		row[i] = cell{name, strong}
	}
	return row
}

// field is a labelled line of a description.
type field struct {
	label, text string
	as          style
}

// fields writes labelled lines. A text that is too long for the screen goes on below
// where it begins.
func (s screen) fields(out io.Writer, all []field) {
	indent := 0
	for _, f := range all {
		indent = max(indent, len(f.label)+len(gap))
	}
	for _, f := range all {
		label := f.label
		for _, line := range s.wrap(s.text(f.text), s.width-indent) {
			padding := strings.Repeat(" ", indent-len(label))
			_, _ = fmt.Fprintln(out, s.paint(faint, label)+padding+s.paint(f.as, line))
			label = ""
		}
	}
}

// wrap breaks a text into lines of a number of columns, between words; a text of one
// line where the number is not positive.
func (s screen) wrap(text string, columns int) []string {
	if s.width == 0 || columns <= 0 {
		return []string{text}
	}
	var lines []string
	line, length := "", 0
	for word := range strings.SplitSeq(text, " ") {
		size := utf8.RuneCountInString(word)
		if length > 0 && length+1+size > columns {
			lines = append(lines, line)
			line, length = "", 0
		}
		if length > 0 {
			line, length = line+" ", length+1
		}
		line, length = line+word, length+size
	}
	return append(lines, line)
}

// span is a length of time for people, such as 87d or 5m30s.
func span(d time.Duration) string { return duration.HumanDuration(d) }
