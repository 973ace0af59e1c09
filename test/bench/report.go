package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
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

func table(rows []row) string {
	text := "| target | wanted | measured | met |\n| --- | --- | --- | --- |\n"
	for _, r := range rows {
		text += fmt.Sprintf("| %s | %s | %s | %s |\n", r.what, r.wanted, r.measured, r.met)
	}
	return text
}

// quantile is the least value of a list, which is not empty, that a share of it does not exceed.
func quantile[T cmp.Ordered](share float64, values []T) T {
	return slices.Sorted(slices.Values(values))[int(math.Ceil(share*float64(len(values))))-1]
}

// thisMachine is the line below the table: when, of what and where the measurements are made.
// The load is how many processes wanted to run in the minute before.
func thisMachine(ctx context.Context) string {
	commit, _ := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	processor, _ := os.ReadFile("/proc/cpuinfo")
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("Measured on %s, commit %s, %s, %d cores, load average %s before, %s.",
		time.Now().UTC().Format(time.DateOnly), strings.TrimSpace(string(commit)),
		find(string(processor), `model name\s*: (.*)`), runtime.NumCPU(), find(string(load), `^(\S+)`), runtime.Version())
}

// find is what the group of a pattern matches in a text.
func find(text, pattern string) string {
	if match := regexp.MustCompile(pattern).FindStringSubmatch(text); match != nil {
		return match[1]
	}
	return "unknown"
}
