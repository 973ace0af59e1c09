package figures

import (
	"fmt"
	"slices"
	"strings"
)

// Table is a Markdown table, without a line break at its end.
func Table(titles []string, rows [][]string) string {
	lines := []string{line(titles), line(slices.Repeat([]string{"---"}, len(titles)))}
	for _, row := range rows {
		lines = append(lines, line(row))
	}
	return strings.Join(lines, "\n")
}

func line(cells []string) string {
	escaped := make([]string, len(cells))
	for i, cell := range cells {
		escaped[i] = strings.ReplaceAll(cell, "|", `\|`)
	}
	return "| " + strings.Join(escaped, " | ") + " |"
}

// FillIn puts a text between the marks of a name in a document. It is an error when the
// document has no such marks.
func FillIn(document, name, text string) (string, error) {
	begin, end := fmt.Sprintf("<!-- table: %s -->\n", name), "<!-- end -->"
	before, rest, found := strings.Cut(document, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", fmt.Errorf("the document has no place for the table %q: write %q and %q into it", name, begin, end)
	}
	return before + begin + text + "\n" + end + after, nil
}
