package serverbuild

import (
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

// stopGrace is how long an interrupted Go command may take to clean up.
const stopGrace = 10 * time.Second

// releaseTags are the build tags of the Makefile's release of the operator and the API Key Manager.
// To other programs they mean nothing.
const releaseTags = "grpcnotrace"

// BuildProgram builds a package of this repository, as a release has it but for further
// build tags. Nothing is logged unless it takes long. Without an output it compiles one package
// or many, for Go's cache only: a spec that builds a program later only links it, so that no
// deadline of a test covers compiling.
func BuildProgram(ctx context.Context, root, importPath, output string, log io.Writer, tags ...string) error {
	s := set{name: importPath, dir: root, tags: strings.Join(append(tags, releaseTags), ",")}
	if output != "" {
		s.name = filepath.Base(output)
		var err error
		if output, err = filepath.Abs(output); err != nil {
			return err
		}
	}
	progress := startProgress(log, s.name)
	defer progress.stop()
	if err := s.compile(ctx, progress, output, importPath); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// build compiles the set's programs into target.
func (c cache) build(ctx context.Context, s set, target string) error {
	progress := startProgress(c.log, s.name)
	defer progress.stop()
	progress.print("not in the cache yet, so it is built; this happens once")
	paths := make([]string, 0, len(s.programs))
	for _, p := range s.programs {
		paths = append(paths, p.importPath)
	}
	if err := s.compile(ctx, progress, target+string(filepath.Separator), paths...); err != nil {
		return err
	}
	progress.print("built")
	for _, p := range s.programs {
		if err := os.Rename(filepath.Join(target, p.defaultName), filepath.Join(target, p.name)); err != nil {
			return err
		}
	}
	return nil
}

// compile runs go build, which takes modules and packages from the Go caches
// where they are there. Without an output it fills the cache and links nothing. The
// committed go.sum is complete, so nothing may change it.
func (s set) compile(ctx context.Context, progress *progress, output string, importPaths ...string) error {
	flags := []string{"-mod=readonly", "-trimpath", "-buildvcs=false", "-tags=" + s.tags, "-ldflags=" + s.linkFlags()}
	list := append([]string{"list", "-deps", "-f", "{{.StaleReason}}"}, flags...)
	reasons, err := runGo(ctx, s.dir, progress, append(list, importPaths...)...) // downloads the modules
	if err != nil {
		return fmt.Errorf("listing its packages: %w", err)
	}
	stale := 0
	for reason := range strings.Lines(reasons) {
		if reason != "\n" && !strings.Contains(reason, "available in build cache") {
			stale++
		}
	}
	progress.compiling(stale)
	build := append([]string{"build", "-v"}, flags...)
	if output != "" {
		build = append(build, "-o", output)
	}
	if _, err := runGo(ctx, s.dir, progress, append(build, importPaths...)...); err != nil {
		return fmt.Errorf("building it: %w", err)
	}
	return nil
}

// runGo runs a Go command in dir, and returns its standard output.
func runGo(ctx context.Context, dir string, progress *progress, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopGrace
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, progress
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, progress.complaints())
	}
	return output.String(), nil
}
