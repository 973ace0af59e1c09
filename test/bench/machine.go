package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

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
