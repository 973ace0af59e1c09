package main

import (
	"fmt"
	"slices"
	"strings"

	"infrado.cloud/headscale-operator/test/figures"
)

// report is what was found of a subject.
type report struct {
	// tables show all of it.
	tables []string
	// targets are the figures by which it is judged.
	targets []target
}

// text is the report in Markdown.
func (r report) text() string {
	return strings.Join(append(slices.Clone(r.tables), compare(r.targets)), "\n\n")
}

// target is something that was measured, next to what it should be; wanted is empty where
// nothing is said of that.
type target struct {
	what, wanted, measured string
	met                    bool
}

// noted is a measurement that the others are to be seen next to.
func noted(what, measured string) target { return target{what: what, measured: measured} }

// atMost compares a measurement with its limit; the format shows both.
func atMost(what string, measured, limit float64, format string) target {
	return target{
		what: what, wanted: "≤ " + fmt.Sprintf(format, limit),
		measured: fmt.Sprintf(format, measured), met: measured <= limit,
	}
}

// compare is a table of targets.
func compare(targets []target) string {
	rows := make([][]string, len(targets))
	for i, t := range targets {
		verdict := "no"
		switch {
		case t.wanted == "":
			verdict = ""
		case t.met:
			verdict = "yes"
		}
		rows[i] = []string{t.what, t.wanted, t.measured, verdict}
	}
	return figures.Table([]string{"target", "wanted", "measured", "met"}, rows)
}
