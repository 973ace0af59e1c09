package serverbuild

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// progressEvery is the longest silence during a build.
const progressEvery = 10 * time.Second

// downloadLine begins the line that the Go command prints for each module that
// it fetches.
const downloadLine = "go: downloading "

// progress tells at least every ten seconds how far a build is.
type progress struct {
	log   io.Writer
	name  string
	start time.Time
	ended chan struct{}
	wait  sync.WaitGroup

	mutex    sync.Mutex
	modules  int // downloaded
	building bool
	compiled int
	total    int
}

// startProgress begins to report under the given name.
func startProgress(log io.Writer, name string) *progress {
	p := &progress{log: log, name: name, start: time.Now(), ended: make(chan struct{})}
	p.wait.Go(p.report)
	return p
}

// report prints the state until the end.
func (p *progress) report() {
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.ended:
			return
		case <-ticker.C:
			p.print(p.state())
		}
	}
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

// line takes note of one line that the Go command printed.
func (p *progress) line(line string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	switch {
	case strings.HasPrefix(line, downloadLine):
		p.modules++
	case p.building && isProgress(line):
		p.compiled++
	}
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

// isProgress tells the lines by which the Go command reports what it does (a
// download, or the import path of a package that it compiles) from complaints.
func isProgress(line string) bool {
	return strings.HasPrefix(line, downloadLine) || !strings.ContainsAny(line, " \t#:")
}
