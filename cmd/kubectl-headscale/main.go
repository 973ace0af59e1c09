// Command kubectl-headscale is a plugin of kubectl: kubectl headscale shows how a
// Headscale and its API key are, reveals the key, and has it replaced.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"

	"infrado.cloud/headscale-operator/internal/plugin"
)

// What the linker knows of this build.
var (
	version = "dev"
	commit  = "unknown"
	date    = "unknown"
)

func main() {
	// What went wrong is said by the plugin, once and in a sentence.
	klog.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := plugin.Run(ctx, os.Args[1:], plugin.Environment{
		Streams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		Getenv:  os.Getenv,
		Now:     time.Now,
		Build:   plugin.Build{Version: version, Commit: commit, Date: date},
	})
	stop()
	os.Exit(status)
}
