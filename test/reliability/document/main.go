// Command document runs the reliability suite, the slow specs included, and writes
// what it saw into the tables of docs/reliability.md.
//
// With --from it runs nothing, and takes the observations from a file.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"infrado.cloud/headscale-operator/test/reliability/observation"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// documentPath is the document, below the repository's root.
const documentPath = "docs/reliability.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "document:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	from := flag.String("from", "", "`file` of observations, such as "+observation.File+"; empty: run the suite")
	flag.Parse()
	root, err := serverbuild.FindRoot()
	if err != nil {
		return err
	}
	if *from == "" {
		*from = filepath.Join(root, observation.File)
		if err := runSuite(ctx, root, *from); err != nil {
			return err
		}
	}
	observations, latencies, err := observation.Read(*from)
	if err != nil {
		return err
	}
	path := filepath.Join(root, documentPath)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	updated, err := fillIn(string(text), tables(observations, latencies))
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(updated), 0o644)
}

// runSuite runs every spec of the suite, on servers that are built first.
func runSuite(ctx context.Context, root, report string) error {
	versions, err := serverbuild.HeadscaleVersions(root)
	if err != nil {
		return err
	}
	servers, err := serverbuild.Ensure(ctx, serverbuild.Options{Root: root, Headscale: versions, Log: os.Stderr})
	if err != nil {
		return err
	}
	suite := exec.CommandContext(ctx, "go", "test", "./test/reliability", "-count=1", "-timeout=90m",
		"-args", "-ginkgo.label-filter=slow || !slow", "-ginkgo.show-node-events=false")
	suite.Dir = root
	suite.Env = append(os.Environ(), serverbuild.AssetsVariable+"="+servers.Assets, observation.FileVariable+"="+report)
	suite.Stdout, suite.Stderr = os.Stderr, os.Stderr
	suite.Cancel = func() error { return suite.Process.Signal(syscall.SIGINT) }
	if err := suite.Run(); err != nil {
		return fmt.Errorf("running the suite: %w", err)
	}
	return nil
}
