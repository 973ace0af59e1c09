package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

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

// machine is where and of what the measurements were made.
type machine struct {
	commit, processor string
	cores             int
	// load is how many processes wanted to run in the minute before.
	load string
}

// thisMachine asks git and the kernel. What they cannot say is called unknown.
func thisMachine(ctx context.Context, root string) machine {
	m := machine{commit: "an unknown commit", processor: "unknown processor", cores: runtime.NumCPU(), load: "unknown"}
	describe := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty")
	describe.Dir = root
	if output, err := describe.Output(); err == nil {
		m.commit = string(bytes.TrimSpace(output))
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if model := processorModel(string(text)); model != "" {
			m.processor = model
		}
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.load, _, _ = strings.Cut(string(text), " ")
	}
	return m
}

// processorModel is the name of the first processor in /proc/cpuinfo, or "".
func processorModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		name, value, found := strings.Cut(line, ":")
		if found && strings.TrimSpace(name) == "model name" {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return ""
}

// describe is the line below each table.
func (m machine) describe(now time.Time) string {
	return fmt.Sprintf("Measured on %s, commit %s, %s, %d cores, load average %s before, %s.",
		now.UTC().Format(time.DateOnly), m.commit, m.processor, m.cores, m.load, runtime.Version())
}
