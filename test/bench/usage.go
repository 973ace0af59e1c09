package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// ticksPerSecond is the unit of times in /proc: USER_HZ, which is 100 on every platform
// that Go runs Linux on.
const ticksPerSecond = 100

// memoryOf is one of the sizes in a process's smaps_rollup, in MiB: Rss is the resident set
// size, and Pss the proportional one, what it alone has in memory and its share of what it has
// in common with others.
func memoryOf(pid int, name string) float64 {
	return must(parseRollup(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)))), name))
}

// parseRollup returns one of the sizes in smaps_rollup, in MiB.
func parseRollup(text, name string) (float64, error) {
	_, size, _ := strings.Cut(text, "\n"+name+":")
	var kibibytes float64
	if _, err := fmt.Sscanf(size, "%f kB", &kibibytes); err != nil {
		return 0, fmt.Errorf("the kernel does not say the %s of the process: %w", name, err)
	}
	return kibibytes / 1024, nil
}

// processorTime is how long a process has kept processors busy.
func processorTime(pid int) time.Duration {
	return must(parseStat(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))))))
}

// parseStat returns the processor time, in user mode and in the kernel, in /proc/PID/stat.
func parseStat(text string) (time.Duration, error) {
	// The second field is a name in parentheses, which may have any of the others in it.
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("the state of the process cannot be read: %q", text)
	}
	var user, kernel int
	_, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &kernel)
	return time.Duration(user+kernel) * time.Second / ticksPerSecond, err
}
