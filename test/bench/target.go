package main

import (
	"fmt"

	"infrado.cloud/headscale-operator/test/figures"
)

// target is something that was measured, next to what it should be.
type target struct {
	what, wanted, measured string
	met                    bool
}

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
		if t.met {
			verdict = "yes"
		}
		rows[i] = []string{t.what, t.wanted, t.measured, verdict}
	}
	return figures.Table([]string{"target", "wanted", "measured", "met"}, rows)
}
