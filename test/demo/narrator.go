package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// narrator prints what happens, line by line, with the time since the start.
type narrator struct {
	mutex sync.Mutex
	out   io.Writer
	start time.Time
}

func newNarrator(out io.Writer) *narrator {
	return &narrator{out: out, start: time.Now()}
}

// say prints a line with the time.
func (n *narrator) say(format string, args ...any) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	_, _ = fmt.Fprintf(n.out, "[%6.1fs] %s\n", time.Since(n.start).Seconds(), fmt.Sprintf(format, args...))
}

// detail prints a line that belongs to the one before.
func (n *narrator) detail(format string, args ...any) {
	n.block(fmt.Sprintf(format, args...))
}

// block prints lines that belong to the one before.
func (n *narrator) block(text string) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		_, _ = fmt.Fprintf(n.out, "           %s\n", strings.TrimRight(line, "\n"))
	}
}

// Write takes the progress of builds, a line at a time.
func (n *narrator) Write(text []byte) (int, error) {
	n.say("%s", strings.TrimRight(string(text), "\n"))
	return len(text), nil
}
