package serverbuild

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// stopGrace is how long an interrupted Go command may take to clean up.
	stopGrace = 10 * time.Second
	// errorLines is how many lines of a failed command the error shows.
	errorLines = 40
)

// build compiles the set's programs into target.
func (c cache) build(ctx context.Context, s set, target string) error {
	progress := startProgress(c.log, s.name)
	defer progress.stop()
	progress.print("not in the cache yet, so it is built; this happens once")
	if err := s.compile(ctx, progress, target+string(filepath.Separator)); err != nil {
		return err
	}
	progress.print("built")
	return s.rename(target)
}

// releaseTags are the build tags of the Makefile's release of the API Key Manager. To the
// other programs they mean nothing.
const releaseTags = "grpcnotrace"

// BuildProgram builds a package of this repository, as a release has it. Nothing
// is logged unless it takes long.
func BuildProgram(ctx context.Context, root, importPath, output string, log io.Writer) error {
	s := set{name: filepath.Base(output), dir: root, programs: []program{{importPath: importPath}}, tags: releaseTags}
	progress := startProgress(log, s.name)
	defer progress.stop()
	output, err := filepath.Abs(output)
	if err != nil {
		return err
	}
	if err := s.compile(ctx, progress, output); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// compile runs go build, which takes modules and packages from the Go caches
// where they are there.
func (s set) compile(ctx context.Context, progress *progress, output string) error {
	total, err := countStale(ctx, s, progress)
	if err != nil {
		return fmt.Errorf("listing its packages: %w", err)
	}
	progress.compiling(total)
	args := append([]string{"build", "-v", "-o", output}, buildFlags(s)...)
	if _, err := runGo(ctx, s.dir, progress.line, append(args, s.importPaths()...)...); err != nil {
		return fmt.Errorf("building it: %w", err)
	}
	return nil
}

// rename gives the programs in dir the names under which they are looked for.
func (s set) rename(dir string) error {
	for _, p := range s.programs {
		if p.name == p.defaultName {
			continue
		}
		if err := os.Rename(filepath.Join(dir, p.defaultName), filepath.Join(dir, p.name)); err != nil {
			return err
		}
	}
	return nil
}

// buildFlags are the flags of go list and go build alike. The committed go.sum
// is complete, so nothing may change it.
func buildFlags(s set) []string {
	return []string{"-mod=readonly", "-trimpath", "-buildvcs=false", "-tags=" + s.tags, "-ldflags=" + s.linkFlags()}
}

// countStale downloads the modules and counts the packages that the build cache
// does not have.
func countStale(ctx context.Context, s set, progress *progress) (int, error) {
	args := append([]string{"list", "-deps", "-f", "{{.StaleReason}}"}, buildFlags(s)...)
	output, err := runGo(ctx, s.dir, progress.line, append(args, s.importPaths()...)...)
	if err != nil {
		return 0, err
	}
	count := 0
	for reason := range strings.Lines(output) {
		reason = strings.TrimSpace(reason)
		if reason != "" && !strings.Contains(reason, "available in build cache") {
			count++
		}
	}
	return count, nil
}

// runGo runs a Go command in dir, hands each line of its standard error to
// onLine, and returns its standard output.
func runGo(ctx context.Context, dir string, onLine func(string), args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopGrace
	var output strings.Builder
	cmd.Stdout = &output
	complaints := &lastLines{limit: errorLines}
	reader, writer := io.Pipe()
	cmd.Stderr = writer
	read := make(chan struct{})
	go func() {
		defer close(read)
		scanLines(reader, func(line string) {
			onLine(line)
			complaints.add(line)
		})
	}()
	err := cmd.Run()
	_ = writer.Close()
	<-read
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, complaints)
	}
	return output.String(), nil
}

// scanLines calls onLine for each line, however long.
func scanLines(reader io.Reader, onLine func(string)) {
	buffered := bufio.NewReader(reader)
	for {
		line, err := buffered.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			onLine(line)
		}
		if err != nil {
			return
		}
	}
}

// lastLines keeps the last lines of a command's complaints.
type lastLines struct {
	limit int
	lines []string
}

// add keeps a line unless it only tells of progress.
func (l *lastLines) add(line string) {
	if isProgress(line) {
		return
	}
	l.lines = append(l.lines, line)
	if len(l.lines) > l.limit {
		l.lines = l.lines[1:]
	}
}

func (l *lastLines) String() string {
	return strings.Join(l.lines, "\n")
}
