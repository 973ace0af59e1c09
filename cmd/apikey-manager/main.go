// Command apikey-manager keeps a valid admin API key of a Headscale in a
// Kubernetes Secret. It runs next to Headscale, which it reaches by its Unix socket.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"infrado.cloud/headscale-operator/internal/adminserver"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// What the linker knows of this build.
var (
	version = "dev"
	commit  = "unknown"
	date    = "unknown"
)

// exitUsage is the exit status that says that the flags, or what they lead to,
// cannot be used. Nothing else ends the program but a signal.
const exitUsage = 2

// gcPercent has the garbage collector run at half of the usual growth. The program
// allocates next to nothing but for a scrape of its metrics, so that costs no time that
// could be measured, and saves 2 MiB: docs/decisions/2026-11-24-small-sidecar.md.
const gcPercent = 50

// memoryLimit has the garbage collector work harder from there on, because a Headscale that
// was taken over can make the program allocate much. At rest it has 6 MiB besides its own text,
// which takes 14 more of the container's 64 MiB.
const memoryLimit = 32 << 20

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "apikey-manager: "+err.Error())
		os.Exit(exitUsage)
	}
}

func run(arguments []string) error {
	if len(arguments) > 0 {
		switch arguments[0] {
		case apikey.RestoreIdentityCommand:
			return apikey.RestoreIdentity(arguments[1:], os.Stderr)
		case apikey.CheckVolumeCommand:
			return apikey.CheckVolume(arguments[1:], os.Stderr)
		case apikey.CountRowsCommand:
			return apikey.CountRows(arguments[1:])
		}
	}
	options, err := apikey.ParseOptions(arguments, apikey.DefaultNamespace, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case options.Version:
		fmt.Printf("apikey-manager %s (commit %s, %s)\n", version, commit, date)
		return nil
	}
	cluster, err := apikey.ClusterConfig()
	if err != nil {
		return err
	}
	secrets, err := apikey.NewSecrets(cluster, options.Namespace, options.SecretName)
	if err != nil {
		return err
	}
	tag, err := apikey.NewTag(cluster, options.Namespace, options.SecretName)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	klog.SetSlogLogger(log.With("from", "client-go"))

	admin := headscale.NewClient(headscale.UnixSocket(options.SocketPath))
	defer func() { _ = admin.Close() }()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log.Info("Starting", "version", version, "socket", options.SocketPath, "namespace", options.Namespace,
		"secret", options.SecretName, "expiration", options.Expiration, "rotationBuffer", options.RotationBuffer,
		"revocationDelay", options.RevocationDelay, "metrics", options.MetricsAddress,
		"admin", options.AdminAddress)
	config := apikey.Config{
		Admin:      admin,
		Secrets:    secrets,
		Settings:   options.Settings,
		Tag:        tag,
		Owner:      options.Owner,
		SocketPath: options.SocketPath,
		Clock:      time.Now,
		Log:        log,
	}
	var identity *apikey.Identity
	if options.IdentitySecret != "" {
		identity = &apikey.Identity{Secret: secrets.Named(options.IdentitySecret), Dir: options.IdentityDir, Headscale: options.Owner.Name, Log: log}
	}
	return start(ctx, config, options, admin, identity)
}

// start runs the Manager, its metrics server and its admin endpoint until the context ends, and
// keeps the private keys if there are any to keep.
func start(ctx context.Context, config apikey.Config, options apikey.Options, admin *headscale.Client, identity *apikey.Identity) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	var answered func(status int)
	var metrics *apikey.Metrics
	if options.MetricsAddress != "" {
		metrics = apikey.NewMetrics(apikey.MetricsFacts{
			Version: version, Commit: commit, HeadscaleVersion: options.HeadscaleVersion, Transport: admin.Transport,
		})
		config.Admin, config.Observer, answered = metrics.Watch(config.Admin), metrics, metrics.Answered
	}
	if options.AdminAddress != "" {
		certificate, err := adminserver.NewCertificate(time.Now())
		if err != nil {
			return err
		}
		keyring := adminserver.NewKeyring(time.Now)
		config.Keyring, config.AdminCertificate = keyring, certificate.Pin()
		server := adminserver.Server{
			Address: options.AdminAddress, Certificate: certificate, Keys: keyring,
			Dial: headscale.UnixSocket(options.SocketPath), Transport: admin.Transport, Answered: answered, Log: config.Log,
		}
		serving.Go(func() { _ = server.Start(ctx) }) // It never fails.
	}
	manager := apikey.New(config)
	if metrics != nil {
		endpoint := apikey.Endpoint{Address: options.MetricsAddress, Metrics: metrics.Handler(), Alive: manager.Alive, Notice: manager.Notice, Log: config.Log}
		serving.Go(func() { _ = endpoint.Start(ctx) }) // It never fails.
	}
	if identity != nil {
		serving.Go(func() { identity.Start(ctx) })
	}
	return manager.Start(ctx)
}
