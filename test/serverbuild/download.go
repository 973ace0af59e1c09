package serverbuild

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// envtestIndexURL is the default of setup-envtest's flag --index.
const envtestIndexURL = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml"

// downloadTimeout is when a download has lost against a build.
const downloadTimeout = 3 * time.Minute

// probeTimeout is how long a closed network may hold things up.
var probeTimeout = 4 * time.Second

// download fetches the set's programs with setup-envtest into target.
func (c cache) download(ctx context.Context, s set, target string) error {
	if err := probe(c.indexURL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	progress := startProgress(c.log, "setup-envtest")
	defer progress.stop()
	progress.print("downloading " + s.name)
	store := filepath.Join(target, "store")
	defer func() { _ = os.RemoveAll(store) }()
	found, err := runGo(ctx, filepath.Join(c.root, "hack", "tools", "setup-envtest"), progress,
		"tool", "setup-envtest", "use", s.envtest, "--bin-dir", store, "--index", c.indexURL, "-p", "path")
	if err != nil {
		return err
	}
	for _, p := range s.programs {
		if err := os.Rename(filepath.Join(strings.TrimSpace(found), p.name), filepath.Join(target, p.name)); err != nil {
			return err
		}
	}
	return nil
}

// probe finds out quickly whether the index can be reached.
func probe(url string) error {
	client := http.Client{Timeout: probeTimeout}
	response, err := client.Head(url) //nolint:noctx // ends soon
	if err != nil {
		return errors.New("the index of setup-envtest cannot be reached")
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the index of setup-envtest answered with %s", response.Status)
	}
	return nil
}
