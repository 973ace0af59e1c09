package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"time"
)

// row is a figure, next to what it should be. What it should be, and whether that is met, are
// empty where nothing is wanted.
type row struct{ what, wanted, measured, met string }

// noted is a figure that the others are to be seen next to.
func noted(what, format string, measured ...any) row {
	return row{what: what, measured: fmt.Sprintf(format, measured...)}
}

// atMost compares a figure with its limit; the format shows both.
func atMost(what, format string, measured, limit float64) row {
	met := "no"
	if measured <= limit {
		met = "yes"
	}
	return row{what, "≤ " + fmt.Sprintf(format, limit), fmt.Sprintf(format, measured), met}
}

// table is a Markdown table of rows.
func table(rows []row) string {
	text := "| target | wanted | measured | met |\n| --- | --- | --- | --- |\n"
	for _, r := range rows {
		text += fmt.Sprintf("| %s | %s | %s | %s |\n", r.what, r.wanted, r.measured, r.met)
	}
	return text
}

// median is that of a list that is not empty.
func median(values []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// percentile90 is the value that nine in ten of a list, which is not empty, do not exceed.
func percentile90(values []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(values))[(len(values)*9+9)/10-1]
}

// thisMachine is the line below the table: when, of what and where the measurements are made.
// The load is how many processes wanted to run in the minute before.
func thisMachine(ctx context.Context) string {
	commit, _ := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	return fmt.Sprintf("Measured on %s, commit %s, %s, %d cores, load average %s before, %s.",
		time.Now().UTC().Format(time.DateOnly), bytes.TrimSpace(commit),
		find("/proc/cpuinfo", `model name\s*: (.*)`), runtime.NumCPU(), find("/proc/loadavg", `^(\S+)`), runtime.Version())
}

// find is what the group of a pattern matches in a file.
func find(path, pattern string) string {
	text, _ := os.ReadFile(path)
	if match := regexp.MustCompile(pattern).FindSubmatch(text); match != nil {
		return string(match[1])
	}
	return "unknown"
}
