package serverbuild

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	// progressEvery is the longest silence during a build.
	progressEvery = 10 * time.Second
	// errorLines is how many lines of a failed command the error shows.
	errorLines = 40
	// downloadLine begins the line that the Go command prints for each module that
	// it fetches.
	downloadLine = "go: downloading "
)

// progress reports at least every ten seconds how far a build is. The Go commands write
// their standard error to it.
type progress struct {
	log   io.Writer
	name  string
	start time.Time
	ended chan struct{}
	wait  sync.WaitGroup

	mutex    sync.Mutex
	line     string   // not yet complete
	other    []string // the last lines that report no progress
	modules  int      // downloaded
	building bool
	compiled int
	total    int
}

// startProgress begins to report under the given name.
func startProgress(log io.Writer, name string) *progress {
	p := &progress{log: log, name: name, start: time.Now(), ended: make(chan struct{})}
	p.wait.Go(func() {
		for {
			select {
			case <-p.ended:
				return
			case <-time.After(progressEvery):
				p.print(p.state())
			}
		}
	})
	return p
}

// stop ends the reports.
func (p *progress) stop() {
	close(p.ended)
	p.wait.Wait()
}

// compiling begins the second phase, in which total packages are compiled.
func (p *progress) compiling(total int) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.building, p.total = true, total
}

// Write takes note of what the Go command prints: a download, the import path of a
// package that it compiles, or a complaint.
func (p *progress) Write(text []byte) (int, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	lines := strings.Split(p.line+string(text), "\n")
	p.line = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		switch {
		case strings.HasPrefix(line, downloadLine):
			p.modules++
		case strings.ContainsAny(line, " \t#:"):
			p.other = append(p.other, line)
			p.other = p.other[max(0, len(p.other)-errorLines):]
		case p.building && line != "":
			p.compiled++
		}
	}
	return len(text), nil
}

// complaints are the last lines that report no progress.
func (p *progress) complaints() string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return strings.TrimSpace(strings.Join(p.other, "\n") + "\n" + p.line)
}

// state describes the current phase.
func (p *progress) state() string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	switch {
	case !p.building:
		return fmt.Sprintf("downloading modules, %d so far", p.modules)
	case p.compiled < p.total:
		return fmt.Sprintf("compiled %d of %d packages", p.compiled, p.total)
	default:
		return fmt.Sprintf("compiled %d packages, linking", p.compiled)
	}
}

func (p *progress) print(message string) {
	_, _ = fmt.Fprintf(p.log, "%s: %s (%s)\n", p.name, message, time.Since(p.start).Round(time.Second))
}
