package policy

import (
	"github.com/pmezard/go-difflib/difflib"
	"github.com/tailscale/hujson"
)

// contextLines is how many lines are shown around each difference.
const contextLines = 3

// Difference returns the difference in meaning between two documents, as a unified diff; "" if
// there is none. Keys are sorted, and each entry of a list is one line. A document that is nil has
// no lines.
func Difference(from, to *Document, fromName, toName string) string {
	// The writer of a string has no errors.
	text, _ := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: from.lines(), B: to.lines(), FromFile: fromName, ToFile: toName, Context: contextLines,
	})
	return text
}

// lines are what the document means.
func (d *Document) lines() []string {
	if d == nil {
		return nil
	}
	lines := linesOf("", "", d.value)
	lines[len(lines)-1] = "}\n" // nothing follows the document
	return lines
}

// linesOf are what a value means, behind its name.
func linesOf(indent, name string, value hujson.Value) []string {
	var inner []string
	brackets := "{}"
	switch v := value.Value.(type) {
	case *hujson.Object:
		for _, member := range sorted(v) {
			inner = append(inner, linesOf(indent+"  ", quotedKey(&member)+": ", member.Value)...)
		}
	case *hujson.Array:
		brackets = "[]"
		for i := range v.Elements {
			inner = append(inner, indent+"  "+meaning(v.Elements[i])+",\n")
		}
	}
	if len(inner) == 0 {
		return []string{indent + name + meaning(value) + ",\n"}
	}
	return append(append([]string{indent + name + brackets[:1] + "\n"}, inner...), indent+brackets[1:]+",\n")
}
