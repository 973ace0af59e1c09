package pages

import (
	"regexp"
	"strings"
	"unicode"
)

// Exchange is a command and what it is shown to print.
type Exchange struct {
	Command, Output string
}

// ParseTranscript reads a block of commands after a $, each of which may go on after
// a >, and what they print.
func ParseTranscript(text string) []Exchange {
	var exchanges []Exchange
	for line := range strings.Lines(text) {
		last := len(exchanges) - 1
		if command, begins := strings.CutPrefix(line, "$ "); begins {
			exchanges = append(exchanges, Exchange{Command: command})
		} else if more, goesOn := strings.CutPrefix(line, "> "); goesOn && last >= 0 && exchanges[last].Output == "" {
			exchanges[last].Command += more
		} else if last >= 0 {
			exchanges[last].Output += line
		}
	}
	return exchanges
}

// What stands for any of its kind, as it is after regexp.QuoteMeta.
var (
	anyTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\\\.\d+)?Z`)
	anyAge  = regexp.MustCompile(`^(\d+[dhms])+$`)
)

// anything is what … stands for: also nothing.
const anything = `(?s:.*)`

// Pattern matches what a command prints where it is shown to print this. The number of
// spaces does not matter, because columns are as wide as what is in them.
func Pattern(output string) *regexp.Regexp {
	var lines []string
	for line := range strings.Lines(output) {
		var words []string
		for _, word := range strings.Fields(line) {
			words = append(words, wordPattern(word))
		}
		lines = append(lines, strings.ReplaceAll(strings.Join(words, `[ \t]+`), `[ \t]+`+anything, anything))
	}
	return regexp.MustCompile(`^\s*` + strings.Join(lines, `\s*\n\s*`) + `\s*$`)
}

// wordPattern matches a word, with the punctuation at its end.
func wordPattern(word string) string {
	if word == "…" {
		return anything
	}
	core := strings.TrimRight(word, ",.;:)")
	end := regexp.QuoteMeta(word[len(core):])
	switch {
	case anyAge.MatchString(core):
		return `(?:\d+[dhmsy])+` + end
	case isPrefix(core):
		return `[A-Za-z0-9_-]{12}` + end
	default:
		quoted := strings.ReplaceAll(regexp.QuoteMeta(word), "…", `\S*`)
		return anyTime.ReplaceAllString(quoted, `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z`)
	}
}

// isPrefix reports whether a word looks like the random prefix of an API key.
func isPrefix(word string) bool {
	return len(word) == 12 && strings.IndexFunc(word, unicode.IsUpper) >= 0 &&
		strings.IndexFunc(word, unicode.IsLower) >= 0 && strings.IndexFunc(word, unicode.IsDigit) >= 0
}
