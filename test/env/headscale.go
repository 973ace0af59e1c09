package env

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/test/process"
)

// portAttempts is how often other ports are tried when somebody took one.
const portAttempts = 3

// HeadscaleOptions say how Headscale is started.
type HeadscaleOptions struct {
	Binary string         // the path of the program
	Guard  *process.Guard // ends Headscale when nobody else does
	// Dir is where the socket, the keys and the databases are; short, because the
	// path of a socket is limited to 107 bytes on Linux and 103 on macOS. Empty: a
	// new directory of the guard's.
	Dir    string
	Config map[string]any // laid over the top level of the config that is written
	Output io.Writer      // receives what Headscale prints; may be nil
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
	addresses [3]string // of HTTP, of the metrics, and of gRPC
	process   *process.Process
}

// StartHeadscale starts Headscale and waits until it answers over TCP and over
// its socket.
func StartHeadscale(ctx context.Context, options HeadscaleOptions) (*Headscale, error) {
	var err error
	if options.Dir == "" {
		if options.Dir, err = os.MkdirTemp(options.Guard.Dir(), "hs-"); err != nil {
			return nil, err
		}
	}
	h := &Headscale{Binary: options.Binary, Database: "db.sqlite", options: options}
	err = retry.OnError(wait.Backoff{Steps: portAttempts}, portTaken, func() (err error) {
		for i := range h.addresses {
			if h.addresses[i], err = FreeAddress(); err != nil {
				return err
			}
		}
		return h.Start(ctx)
	})
	return h, err
}

// portTaken reports whether a server could not start because of its ports.
func portTaken(err error) bool { return strings.Contains(err.Error(), "address already in use") }

// Start starts Headscale, which must not be running, and waits until it answers.
func (h *Headscale) Start(ctx context.Context) error {
	if err := h.launch(); err != nil {
		return err
	}
	return awaitUp(ctx, h.process, h.URL()+"/health", h.SocketPath())
}

// launch starts the process.
func (h *Headscale) launch() error {
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
	return err
}

// RefuseConfig runs Headscale with a config that it refuses until it exits, and returns what it
// printed. It is an error if it does not exit within startTimeout, or exits with status 0.
func RefuseConfig(ctx context.Context, options HeadscaleOptions) (string, error) {
	const anyPort = "127.0.0.1:0"
	h := &Headscale{Binary: options.Binary, Database: "db.sqlite", options: options, addresses: [3]string{anyPort, anyPort, anyPort}}
	if err := h.launch(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := h.process.Wait(ctx)
	h.Kill()
	printed := h.process.Log().String()
	if h.process.ExitCode() <= 0 {
		return "", fmt.Errorf("headscale does not refuse the config (%w), and printed:\n%s", err, printed)
	}
	return printed, nil
}

// config is a whole config that needs nothing outside this machine.
func (h *Headscale) config() map[string]any {
	config := map[string]any{
		"server_url":            h.URL(),
		"listen_addr":           h.addresses[0],
		"metrics_listen_addr":   h.addresses[1],
		"grpc_listen_addr":      h.addresses[2],
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

// URL is the base of the REST API.
func (h *Headscale) URL() string { return "http://" + h.addresses[0] }

// SocketPath is the Unix socket of the admin API.
func (h *Headscale) SocketPath() string { return filepath.Join(h.options.Dir, "hs.sock") }

// ConfigPath is the config that Headscale was started with.
func (h *Headscale) ConfigPath() string { return filepath.Join(h.options.Dir, "config.yaml") }

// Process is the running one, or the last one that ran.
func (h *Headscale) Process() *process.Process { return h.process }

// Stop ends Headscale in order.
func (h *Headscale) Stop() error { return h.process.Stop(endTimeout) }

// Kill ends Headscale without giving it time for anything.
func (h *Headscale) Kill() { h.process.Kill() }
