package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"

	"infrado.cloud/headscale-operator/test/audit"
)

// resting is what a process needs while nothing happens.
type resting struct {
	rest     time.Duration
	requests counts
	// busy is how long it kept processors busy.
	busy time.Duration
	// proportional and resident are its memory afterwards, in MiB.
	proportional, resident float64
}

// percent is the part of a processor that it kept busy.
func (r resting) percent() float64 { return 100 * r.busy.Seconds() / r.rest.Seconds() }

// watchRest watches the process that is measured while nothing happens.
func (l *lab) watchRest(ctx context.Context, rest time.Duration, pid int) resting {
	before, busyBefore := l.count(), processorTime(pid)
	pause(ctx, rest)
	return resting{
		rest: rest, requests: l.count().minus(before), busy: processorTime(pid) - busyBefore,
		proportional: memoryOf(pid, "Pss"), resident: memoryOf(pid, "Rss"),
	}
}

// counts are numbers of requests, but for watches: all of them, those that change something,
// and those of the latter by which an object came about that is no event.
type counts struct{ requests, writes, created int }

// count returns the requests so far. They are those of what is measured, because the log has
// those of ServiceAccounts only, and nobody else in a lab has one.
func (l *lab) count() counts {
	check(l.log.Read(l.requests.add))
	return l.requests
}

// add counts a request.
func (c *counts) add(event *audit.Event) {
	if event.Verb == "watch" {
		return
	}
	c.requests++
	if event.Writes() {
		c.writes++
	}
	if event.Created() && event.ObjectRef.Resource != "events" && event.ObjectRef.Subresource == "" {
		c.created++
	}
}

// minus are the requests since an earlier count.
func (c counts) minus(earlier counts) counts {
	return counts{c.requests - earlier.requests, c.writes - earlier.writes, c.created - earlier.created}
}

// memoryOf is one of the sizes in a process's smaps_rollup, in MiB: Rss is the resident set
// size, and Pss the proportional one, what it alone has in memory and its share of what it has
// in common with others.
func memoryOf(pid int, name string) float64 {
	return numberOf(pid, "smaps_rollup", `(?m)^`+name+`: +(\d+) kB$`) / 1024
}

// ticksPerSecond is the unit of times in /proc: USER_HZ, which is 100 on every platform
// that Go runs Linux on.
const ticksPerSecond = 100

// processorTime is how long a process has kept processors busy, in user mode and in the kernel:
// the 14th and the 15th field, of which the second, a name in parentheses, may have anything in it.
func processorTime(pid int) time.Duration {
	ticks := numberOf(pid, "stat", `^.*\)(?: \S+){11} (\d+) (\d+) `)
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// numberOf is the number in a file in /proc/PID; see numberIn.
func numberOf(pid int, name, pattern string) float64 {
	return numberIn(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name)))), pattern)
}

// numberIn is the number that the group of a pattern matches in a text; the sum, where there
// are several groups.
func numberIn(text, pattern string) (sum float64) {
	groups := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if groups == nil {
		check(fmt.Errorf("there is no %s in %q", pattern, text))
	}
	for _, group := range groups[1:] {
		sum += must(strconv.ParseFloat(group, 64))
	}
	return sum
}
