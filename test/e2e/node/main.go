// Command node is a Tailscale client for the end-to-end suite. It registers with
// Headscale by a pre-auth key and stays connected, in user space, so that it needs no
// rights. It is a module of its own, because nothing else needs Tailscale's code.
//
//	node --url=http://headscale.default.svc:8080 --hostname=laptop \
//	  --state=/state --auth-key-file=/key/auth-key
//
// Once a second it prints what it knows of itself as a line of JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/envknob"
	"tailscale.com/ipn"
	"tailscale.com/tsnet"
)

// reportEvery is the pause between two lines.
const reportEvery = time.Second

// status is what the node knows of itself.
type status struct {
	State     string       `json:"state"`     // Running, once it is registered
	Addresses []netip.Addr `json:"addresses"` // what Headscale has given it
	Lost      int          `json:"lost"`      // how often it was no longer Running
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	server := &tsnet.Server{}
	flag.StringVar(&server.ControlURL, "url", "", "Headscale's address")
	flag.StringVar(&server.Hostname, "hostname", "", "the node's name")
	flag.StringVar(&server.Dir, "state", "", "directory for the node's keys")
	keyFile := flag.String("auth-key-file", "", "file with the pre-auth key")
	flag.Parse()
	key, err := os.ReadFile(*keyFile)
	if err != nil {
		return err
	}
	server.AuthKey = strings.TrimSpace(string(key))
	// Without this, logs would be sent to Tailscale.
	envknob.SetNoLogsNoSupport()
	defer func() { _ = server.Close() }()
	if err := server.Start(); err != nil {
		return err
	}
	client, err := server.LocalClient()
	if err != nil {
		return err
	}
	return report(ctx, client)
}

// report prints the status until the node is stopped.
func report(ctx context.Context, client *local.Client) error {
	var now status
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for {
		seen, err := client.StatusWithoutPeers(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		running := ipn.Running.String()
		if now.State == running && seen.BackendState != running {
			now.Lost++
		}
		now.State, now.Addresses = seen.BackendState, seen.TailscaleIPs
		if err := json.NewEncoder(os.Stdout).Encode(now); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
