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
	"strings"
	"time"
)

// report is what was found of a subject: tables that show all of it, and the figures by
// which it is judged.
type report struct {
	tables  []string
	targets []target
}

// text is the report in Markdown.
func (r report) text() string {
	return strings.Join(append(slices.Clone(r.tables), compare(r.targets)), "\n\n")
}

// target is something that was measured, next to what it should be. What it should be, and
// whether it is met, are empty where nothing is wanted.
type target struct{ what, wanted, measured, met string }

// noted is a measurement that the others are to be seen next to.
func noted(what, measured string) target { return target{what: what, measured: measured} }

// atMost compares a measurement with its limit; the format shows both.
func atMost(what string, measured, limit float64, format string) target {
	met := "no"
	if measured <= limit {
		met = "yes"
	}
	return target{what, "≤ " + fmt.Sprintf(format, limit), fmt.Sprintf(format, measured), met}
}

// compare is a table of targets.
func compare(targets []target) string {
	return table("target | wanted | measured | met", targets, func(t target) []string {
		return []string{t.what, t.wanted, t.measured, t.met}
	})
}

// table is a Markdown table with a row for each item, without a line break at its end.
func table[T any](titles string, items []T, row func(T) []string) string {
	text := "| " + titles + " |\n|" + strings.Repeat(" --- |", strings.Count(titles, "|")+1)
	for _, item := range items {
		text += "\n|"
		for _, cell := range row(item) {
			text += " " + strings.ReplaceAll(cell, "|", `\|`) + " |"
		}
	}
	return text
}

// fillIn puts a text between the marks of a name in a document.
func fillIn(document, name, text string) (string, error) {
	begin, end := fmt.Sprintf("<!-- table: %s -->\n", name), "<!-- end -->"
	before, rest, found := strings.Cut(document, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", fmt.Errorf("the document has no place for the table %q: write %q and %q into it", name, begin, end)
	}
	return before + begin + text + "\n" + end + after, nil
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

func seconds(d time.Duration) string         { return fmt.Sprintf("%.2f s", d.Seconds()) }
func milliseconds(d time.Duration) string    { return fmt.Sprintf("%.0f ms", inMilliseconds(d)) }
func inMilliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
func mebibytes(amount float64) string        { return fmt.Sprintf("%.1f MiB", amount) }

// processor is the line of /proc/cpuinfo that names a processor.
var processor = regexp.MustCompile(`(?m)^model name\s*:(.*)$`)

// thisMachine says where and of what the measurements are made: the line below each table,
// after its date. The load is how many processes wanted to run in the minute before.
func thisMachine(ctx context.Context, root string) string {
	commit := "an unknown commit"
	describe := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty")
	describe.Dir = root
	if output, err := describe.Output(); err == nil {
		commit = string(bytes.TrimSpace(output))
	}
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	loads, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(loads), " ")
	return fmt.Sprintf("commit %s, %s, %d cores, load average %s before, %s.",
		commit, processorModel(string(cpuinfo)), runtime.NumCPU(), load, runtime.Version())
}

// processorModel is the name of the first processor in /proc/cpuinfo.
func processorModel(cpuinfo string) string {
	if match := processor.FindStringSubmatch(cpuinfo); match != nil {
		return strings.Join(strings.Fields(match[1]), " ")
	}
	return "unknown processor"
}

// measuredOn is the line below each table.
func measuredOn(machine string) string {
	return fmt.Sprintf("Measured on %s, %s", time.Now().UTC().Format(time.DateOnly), machine)
}
