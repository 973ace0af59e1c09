// Command demo shows what the operator does, on this machine alone: a real API
// server, the real operator, the real Headscale and the real API Key Manager run
// as local processes, without a cluster and without containers. It stays up until
// Ctrl-C, or ends by itself with DEMO_EXIT=1, and leaves nothing behind.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

// exitInterrupted is the usual exit status of a program that Ctrl-C ended.
const exitInterrupted = 130

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	status := run(ctx, os.Getenv("DEMO_EXIT") == "1")
	stop()
	os.Exit(status)
}

// run tells the story and returns the exit status.
func run(ctx context.Context, exit bool) (status int) {
	s := &stage{narrator: narrator{start: time.Now()}, World: &env.World{}, output: process.NewLog(nil)}
	defer func() {
		if err := s.Close(); err != nil {
			s.say("Cleaning up failed: %v", err)
			status = 1
			return
		}
		s.say("Everything is stopped and removed.")
	}()
	err := s.perform(ctx)
	if err == nil && !exit {
		err = s.stayUp(ctx)
	}
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		s.say("Interrupted.")
		return exitInterrupted
	default:
		s.say("FAILED: %v", err)
		s.showLogs()
		return 1
	}
}

// narrator prints what happens, line by line, with the time since the start.
type narrator struct{ start time.Time }

// say prints a line with the time.
func (n narrator) say(format string, args ...any) {
	fmt.Printf("[%6.1fs] %s\n", time.Since(n.start).Seconds(), fmt.Sprintf(format, args...))
}

// detail prints lines that belong to the one before.
func (n narrator) detail(format string, args ...any) {
	for line := range strings.SplitSeq(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n") {
		fmt.Println("           " + line)
	}
}

// Write takes the progress of builds, a line at a time.
func (n narrator) Write(text []byte) (int, error) {
	n.say("%s", strings.TrimRight(string(text), "\n"))
	return len(text), nil
}
