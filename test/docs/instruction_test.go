package docs_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"infrado.cloud/headscale-operator/test/pages"
)

// manner is what the test does with a block.
type manner string

// The manners. The first four follow from the language of the block.
const (
	commands   manner = "commands"
	transcript manner = "transcript"
	manifest   manner = "manifest"
	shown      manner = "shown"
	// partOf is a part of a Headscale, at the place that the words name.
	partOf manner = "at"
	// file is a manifest that is kept as a file and not checked.
	file manner = "file"
	// values are some of the chart's.
	values manner = "values"
	// until runs commands until they print the words.
	until manner = "until"
	// skip, cluster, e2e and ci are blocks that do not run here.
	skip    manner = "skip"
	cluster manner = "cluster"
	e2e     manner = "e2e"
	ci      manner = "ci"
)

// instruction is what is to be done with a block.
type instruction struct {
	manner manner
	// words are the reason, or what is looked for.
	words string
}

// longRunning matches commands that no page may run.
var longRunning = regexp.MustCompile(`(?m)\b(make|go test) `)

// languages are those that say all that there is to say.
var languages = map[string]manner{
	"sh": commands, "console": transcript, "yaml": manifest, "text": shown, "mermaid": shown, "promql": shown,
}

// comments that say what to do with a block.
var (
	anyComment     = regexp.MustCompile(`^test: `)
	becauseComment = regexp.MustCompile(`(?s)^test: (skip|cluster) because (.+)$`)
	quotedComment  = regexp.MustCompile(`(?s)^test: (e2e|until) "(.+)"$`)
	plainComment   = regexp.MustCompile(`^test: (?:(ci|file|values)(?: of the chart)?|(at) ([a-z_.]+))$`)
)

// readInstruction says what to do with a block, or why that cannot be said.
func readInstruction(b pages.Block) (instruction, error) {
	if anyComment.MatchString(b.Comment) {
		return parseComment(b)
	}
	if b.Language == "sh" && longRunning.MatchString(b.Text) {
		return instruction{}, errors.New("make and go test run for long: write <!-- test: ci --> or <!-- test: skip because … --> before them")
	}
	known, ok := languages[b.Language]
	if !ok {
		return instruction{}, fmt.Errorf("the language %q says not what to do with the block: use sh, console, yaml, text, mermaid or promql, or write <!-- test: skip because … --> before it", b.Language)
	}
	return instruction{manner: known}, nil
}

// languagesFor are the languages of blocks that a comment can be about.
var languagesFor = map[manner][]string{
	e2e: {"sh", "console"}, until: {"sh"}, cluster: {"sh", "console"}, ci: {"sh"}, partOf: {"yaml"}, file: {"yaml"}, values: {"yaml"},
}

func parseComment(b pages.Block) (instruction, error) {
	var i instruction
	if match := becauseComment.FindStringSubmatch(b.Comment); match != nil {
		i = instruction{manner(match[1]), match[2]}
	} else if match := quotedComment.FindStringSubmatch(b.Comment); match != nil {
		i = instruction{manner(match[1]), match[2]}
	} else if match := plainComment.FindStringSubmatch(b.Comment); match != nil {
		i = instruction{manner(match[1] + match[2]), match[3]}
	} else {
		return i, fmt.Errorf("the comment %q is none of those in test/docs/doc.go", b.Comment)
	}
	if allowed, limited := languagesFor[i.manner]; limited && !slices.Contains(allowed, b.Language) {
		return i, fmt.Errorf("the comment %q is for blocks of %v, and this one is %q", b.Comment, allowed, b.Language)
	}
	return i, nil
}

// runsHere reports whether a block does something in this suite.
func (i instruction) runsHere() bool {
	return slices.Contains([]manner{commands, transcript, manifest, partOf, file, values, until}, i.manner)
}
