package env

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/test/process"
)

const (
	// headscaleStart is how long Headscale may take until it answers.
	headscaleStart = time.Minute
	// headscaleGrace is how long Headscale may take to end.
	headscaleGrace = 20 * time.Second
	// poll is how often something is looked at that is about to happen.
	poll = 20 * time.Millisecond
	// portAttempts is how often other ports are tried when somebody took one.
	portAttempts = 3
)

// HeadscaleOptions say how Headscale is started.
type HeadscaleOptions struct {
	// Binary is the path of the program.
	Binary string
	// Guard ends Headscale when nobody else does.
	Guard *process.Guard
	// Dir is where the socket, the keys and the databases are; short, because the
	// path of a socket is limited to 107 bytes on Linux and 103 on macOS. Empty: a
	// new directory of the guard's.
	Dir string
	// Config is laid over the top level of the config that is written.
	Config map[string]any
	// Output receives what Headscale prints. It may be nil.
	Output io.Writer
}

// Headscale is a real Headscale that can be stopped and started again, on the
// same addresses and the same socket.
type Headscale struct {
	// Binary is the program that the next Start runs.
	Binary string
	// Database is the name, within the directory, of the SQLite file that the next
	// Start uses.
	Database string

	options   HeadscaleOptions
	addresses headscaleAddresses
	process   *process.Process
}

// headscaleAddresses are where one Headscale listens.
type headscaleAddresses struct {
	http, metrics, grpc string
}

// StartHeadscale starts Headscale and waits until it answers over TCP and over
// its socket.
func StartHeadscale(ctx context.Context, options HeadscaleOptions) (*Headscale, error) {
	if options.Dir == "" {
		dir, err := os.MkdirTemp(options.Guard.Dir(), "hs-")
		if err != nil {
			return nil, err
		}
		options.Dir = dir
	}
	h := &Headscale{Binary: options.Binary, Database: "db.sqlite", options: options}
	for attempt := 1; ; attempt++ {
		if err := h.takeAddresses(); err != nil {
			return nil, err
		}
		err := h.Start(ctx)
		if err == nil {
			return h, nil
		}
		if attempt == portAttempts || !strings.Contains(err.Error(), "address already in use") {
			return nil, err
		}
	}
}

// takeAddresses chooses free addresses.
func (h *Headscale) takeAddresses() error {
	for _, address := range []*string{&h.addresses.http, &h.addresses.metrics, &h.addresses.grpc} {
		free, err := FreeAddress()
		if err != nil {
			return err
		}
		*address = free
	}
	return nil
}

// Start starts Headscale, which must not be running, and waits until it answers.
func (h *Headscale) Start(ctx context.Context) error {
	config, err := yaml.Marshal(h.config())
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.ConfigPath(), config, 0o600); err != nil {
		return err
	}
	h.process, err = process.Start(process.Command{
		Name: "headscale", Path: h.Binary, Args: []string{"serve", "--config", h.ConfigPath()},
		Env: append(os.Environ(), "HOME="+h.options.Dir), Dir: h.options.Dir,
		Output: h.options.Output, Guard: h.options.Guard,
	})
	if err != nil {
		return err
	}
	if err := h.waitUntilUp(ctx); err != nil {
		h.process.Kill()
		return fmt.Errorf("headscale did not come up: %w; it said:\n%s", err, h.process.Log().Tail(20))
	}
	return nil
}

// config is a whole config that needs nothing outside this machine.
func (h *Headscale) config() map[string]any {
	config := map[string]any{
		"server_url":            h.URL(),
		"listen_addr":           h.addresses.http,
		"metrics_listen_addr":   h.addresses.metrics,
		"grpc_listen_addr":      h.addresses.grpc,
		"unix_socket":           h.SocketPath(),
		"disable_check_updates": true,
		"noise":                 map[string]any{"private_key_path": filepath.Join(h.options.Dir, "noise_private.key")},
		"prefixes":              map[string]any{"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48", "allocation": "sequential"},
		"database": map[string]any{
			"type": "sqlite", "sqlite": map[string]any{"path": filepath.Join(h.options.Dir, h.Database)},
		},
		"dns": map[string]any{"magic_dns": false, "override_local_dns": false, "base_domain": "example.com"},
		"derp": map[string]any{"urls": []string{}, "auto_update_enabled": false, "server": map[string]any{
			"enabled": true, "region_id": 999, "region_code": "test", "region_name": "Test",
			"stun_listen_addr": "127.0.0.1:0", "private_key_path": filepath.Join(h.options.Dir, "derp_private.key"),
		}},
	}
	maps.Copy(config, h.options.Config)
	return config
}

// waitUntilUp waits for the health endpoint and the socket.
func (h *Headscale) waitUntilUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, headscaleStart)
	defer cancel()
	return wait.PollUntilContextCancel(ctx, poll, true, func(ctx context.Context) (bool, error) {
		if !h.process.Running() {
			return false, errors.New("it ended")
		}
		if status, _, _ := get(ctx, h.URL()+"/health", ""); status != http.StatusOK {
			return false, nil
		}
		_, err := os.Stat(h.SocketPath())
		return err == nil, nil
	})
}

// URL is the base of the REST API.
func (h *Headscale) URL() string { return "http://" + h.addresses.http }

// SocketPath is the Unix socket of the admin API.
func (h *Headscale) SocketPath() string { return filepath.Join(h.options.Dir, "hs.sock") }

// ConfigPath is the config that Headscale was started with.
func (h *Headscale) ConfigPath() string { return filepath.Join(h.options.Dir, "config.yaml") }

// Process is the running one, or the last one that ran.
func (h *Headscale) Process() *process.Process { return h.process }

// Stop ends Headscale in order.
func (h *Headscale) Stop() error { return h.process.Stop(headscaleGrace) }

// Kill ends Headscale without giving it time for anything.
func (h *Headscale) Kill() { h.process.Kill() }
