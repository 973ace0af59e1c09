// Command main is the Headscale operator: it runs Headscale servers from Headscale
// resources.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager/signals"

	"infrado.cloud/headscale-operator/internal/operator"
)

// What the linker knows of this build.
var (
	version = "dev"
	commit  = "unknown"
	date    = "unknown"
)

// Exit statuses.
const (
	exitFailure = 1
	exitUsage   = 2
)

// gcPercent has the garbage collector run at a quarter of the usual growth. An operator at
// rest allocates next to nothing, and one that works mostly waits for the API server: with
// 100 Headscales this saves 6 MiB, for some 8 ms of a processor for each new one.
// docs/decisions/2026-11-24-small-operator.md has the figures.
const gcPercent = 25

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(run(signals.SetupSignalHandler(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is the whole program; it returns the exit status.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	s, err := parseFlags(args, getenv, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintln(stderr, "headscale-operator:", err)
		return exitUsage
	case s.showVersion:
		_, _ = fmt.Fprintf(stdout, "headscale-operator %s (commit %s, %s)\n", version, commit, date)
		return 0
	}
	// Before there is a logger: what a library would log of this is in the error.
	cluster, err := findCluster()
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "headscale-operator:", err)
		return exitUsage
	}
	logger := slog.New(s.logHandler(stderr))
	log.SetLogger(logr.FromSlogHandler(logger.Handler()))
	klog.SetSlogLogger(logger)
	if err := operate(ctx, cluster, s, logger); err != nil {
		logger.Error("Operator exited with an error", "error", err)
		return exitFailure
	}
	return 0
}

// findCluster says how to reach the API server. Its error is a sentence for the user.
func findCluster() (*rest.Config, error) {
	cluster, err := config.GetConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no Kubernetes API server is configured: this is not a pod, and there is no kubeconfig; set KUBECONFIG to one or create ~/.kube/config")
	}
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w", err)
	}
	return cluster, nil
}

// operate runs the operator until the context ends.
func operate(ctx context.Context, cluster *rest.Config, s *settings, logger *slog.Logger) error {
	m, err := operator.New(ctx, cluster, &s.Options)
	if err != nil {
		return err
	}
	logger.InfoContext(ctx, "Starting the operator", "version", version, "managerImage", s.ManagerImage, "namespaces", s.Namespaces)
	return m.Start(ctx)
}

// settings are what the command line and the environment say.
type settings struct {
	operator.Options
	logFormat   string
	logLevel    slog.Level
	showVersion bool
}

// parseFlags reads the command line. Its error is a sentence for the user.
func parseFlags(args []string, getenv func(string) string, output io.Writer) (*settings, error) {
	s := settings{Options: operator.Options{Version: version, Commit: commit, Now: time.Now}}
	var namespaces string
	flags := flag.NewFlagSet("headscale-operator", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&s.ManagerImage, "manager-image", getenv("MANAGER_IMAGE"), "image of the API Key Manager where a Headscale names none (environment: MANAGER_IMAGE)")
	flags.StringVar(&s.Metrics.Address, "metrics-bind-address", ":8443", "address of the metrics; 0 disables them")
	flags.BoolVar(&s.Metrics.Secure, "metrics-secure", true, "serve the metrics over HTTPS, to clients whose bearer token has the right to get /metrics; false: plain HTTP without authentication")
	flags.StringVar(&s.Metrics.CertPath, "metrics-cert-path", "", "directory with tls.crt and tls.key for the metrics, which are read again when they change (default: a self-signed certificate, made at each start)")
	flags.StringVar(&s.ProbeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 disables them")
	flags.StringVar(&s.PprofAddress, "pprof-bind-address", "0", "address of the pprof endpoint; 0 disables it")
	flags.BoolVar(&s.LeaderElect, "leader-elect", false, "enable leader election: only one replica is active")
	flags.StringVar(&s.LeaderElectionNamespace, "leader-election-namespace", "", "namespace of the Lease by which the leader is elected (default: the operator's own)")
	flags.StringVar(&namespaces, "watch-namespaces", getenv("WATCH_NAMESPACES"), "namespaces to watch, separated by commas; all if empty (environment: WATCH_NAMESPACES)")
	flags.StringVar(&s.logFormat, "log-format", "text", "format of the log: text or json")
	flags.TextVar(&s.logLevel, "log-level", slog.LevelInfo, "lowest level that is logged: debug, info, warn or error")
	flags.BoolVar(&s.showVersion, "version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(output)
			flags.Usage()
			return nil, flag.ErrHelp
		}
		return nil, fmt.Errorf("%w; --help lists the flags", err)
	}
	if s.showVersion {
		return &s, nil
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: there are flags only; --help lists them", flags.Arg(0))
	}
	var err error
	if s.Namespaces, err = splitNamespaces(namespaces); err != nil {
		return nil, err
	}
	return &s, s.check()
}

// check refuses settings that the operator cannot work with.
func (s *settings) check() error {
	if s.ManagerImage == "" {
		return errors.New("no image of the API Key Manager: set the flag --manager-image or the environment variable MANAGER_IMAGE, such as headscale-operator/apikey-manager:latest")
	}
	if s.logFormat != "text" && s.logFormat != "json" {
		return fmt.Errorf("--log-format is %q: it must be text or json", s.logFormat)
	}
	if s.Metrics.CertPath != "" && !s.Metrics.Secure {
		return errors.New("--metrics-cert-path is set, and --metrics-secure=false serves the metrics without a certificate: leave one of the two out")
	}
	return nil
}

// splitNamespaces reads a list of namespaces.
func splitNamespaces(list string) ([]string, error) {
	var namespaces []string
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			return nil, fmt.Errorf("--watch-namespaces has %q, which is not the name of a namespace: %s", name, problems[0])
		}
		namespaces = append(namespaces, name)
	}
	return namespaces, nil
}

// logHandler makes the handler for the program's log.
func (s *settings) logHandler(output io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: s.logLevel}
	if s.logFormat == "json" {
		return slog.NewJSONHandler(output, options)
	}
	return slog.NewTextHandler(output, options)
}
