package serverbuild

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// envtestIndexURL is the default of setup-envtest's flag --index.
	envtestIndexURL = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml"
	// probeTimeout is how long a closed network may hold things up.
	probeTimeout = 4 * time.Second
	// downloadTimeout is when a download has lost against a build.
	downloadTimeout = 3 * time.Minute
	// sourceFile names, in a cache entry, where the programs come from.
	sourceFile = "SOURCE"
)

// download fetches the set's programs with setup-envtest into target.
func (c cache) download(ctx context.Context, s set, target string) error {
	if err := probe(ctx, c.indexURL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	progress := startProgress(c.log, "setup-envtest")
	defer progress.stop()
	progress.print("downloading " + s.name)
	tool := filepath.Join(target, "setup-envtest")
	defer func() { _ = os.Remove(tool) }()
	build := set{
		dir:      filepath.Join(c.root, "hack", "tools", "setup-envtest"),
		programs: []program{{importPath: "sigs.k8s.io/controller-runtime/tools/setup-envtest"}},
	}
	if err := build.compile(ctx, progress, tool); err != nil {
		return err
	}
	store := filepath.Join(target, "store")
	defer func() { _ = os.RemoveAll(store) }()
	found, err := c.setupEnvtest(ctx, tool, s, store)
	if err != nil {
		return err
	}
	return adopt(s, found, target)
}

// probe finds out quickly whether the index can be reached.
func probe(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return errors.New("the index of setup-envtest cannot be reached")
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the index of setup-envtest answered with %s", response.Status)
	}
	return nil
}

// setupEnvtest runs setup-envtest, which prints where the programs are.
func (c cache) setupEnvtest(ctx context.Context, tool string, s set, store string) (string, error) {
	cmd := exec.CommandContext(ctx, tool, "use", series(s), "--bin-dir", store, "--index", c.indexURL, "-p", "path")
	output, err := cmd.Output()
	if err == nil {
		return strings.TrimSpace(string(output)), nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("setup-envtest: %w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return "", fmt.Errorf("setup-envtest: %w", err)
}

// series is the minor version of the set in setup-envtest's words: 1.37.x for
// kubernetes-v1.37.2, because not every patch release is offered.
func series(s set) string {
	version := strings.TrimPrefix(s.name, "kubernetes-v")
	if cut := strings.LastIndex(version, "."); cut > 0 {
		version = version[:cut]
	}
	return version + ".x"
}

// adopt moves the programs from where setup-envtest put them into target, and
// leaves a note there that says what they are.
func adopt(s set, found, target string) error {
	for _, p := range s.programs {
		if err := os.Rename(filepath.Join(found, p.name), filepath.Join(target, p.name)); err != nil {
			return err
		}
	}
	note := "setup-envtest " + filepath.Base(found) + "\n"
	return os.WriteFile(filepath.Join(target, sourceFile), []byte(note), 0o600)
}
