// Command node is a Tailscale client for the end-to-end suite. It registers with
// Headscale by a pre-auth key and stays connected, in user space, so that it needs no
// rights. It is a module of its own, because nothing else needs Tailscale's code.
//
//	node --url=http://headscale.default.svc:8080 --hostname=laptop \
//	  --state=/state --auth-key-file=/key/auth-key
//
// Without a file, the key is in the variable TS_AUTHKEY. TS_KUBE_SECRET names a Secret for the
// state, as in Tailscale's container. The node advertises --routes, answers on the ports of
// --serve, and tries the addresses of --try again and again.
//
// Once a second it prints what it knows of itself as a line of JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/envknob"
	"tailscale.com/ipn"
	"tailscale.com/ipn/store/kubestore"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"
)

const (
	// reportEvery is the pause between two lines, and between two rounds of tries.
	reportEvery = time.Second
	// tryFor is how long an address has to answer.
	tryFor = 2 * time.Second
	// greeting is what a node answers on a port.
	greeting = "hello\n"
)

// status is what the node knows of itself.
type status struct {
	State     string       `json:"state"`     // Running, once it is registered
	Addresses []netip.Addr `json:"addresses"` // what Headscale has given it
	Lost      int          `json:"lost"`      // how often it was no longer Running
	Rounds    int          `json:"rounds"`    // how often all addresses were tried
	Reached   []string     `json:"reached"`   // those that answered in the last round
}

// settings are what the command line says.
type settings struct{ keyFile, routes, serve, try string }

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
	server, s := &tsnet.Server{}, settings{}
	flag.StringVar(&server.ControlURL, "url", "", "Headscale's address")
	flag.StringVar(&server.Hostname, "hostname", "", "the node's name")
	flag.StringVar(&server.Dir, "state", "", "directory for the node's keys")
	flag.StringVar(&s.keyFile, "auth-key-file", "", "file with the pre-auth key")
	flag.StringVar(&s.routes, "routes", "", "networks that the node advertises, with commas between them")
	flag.StringVar(&s.serve, "serve", "", "ports on which it answers")
	flag.StringVar(&s.try, "try", "", "addresses with ports that it tries")
	flag.Parse()
	// Without this, logs would be sent to Tailscale.
	envknob.SetNoLogsNoSupport()
	// Headscale's relay, by which nodes find each other, has no certificate here.
	envknob.Setenv("TS_DEBUG_USE_DERP_HTTP", "true")
	if err := credentials(server, s.keyFile); err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	if err := server.Start(); err != nil {
		return err
	}
	client, err := server.LocalClient()
	if err != nil {
		return err
	}
	if err := errors.Join(advertise(ctx, client, list(s.routes)), serve(server, list(s.serve))); err != nil {
		return err
	}
	tries := &tries{addresses: list(s.try)}
	go tries.run(ctx, server)
	return report(ctx, client, tries)
}

// list is the parts of a text with commas.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

// credentials reads the pre-auth key, and chooses where the state is kept.
func credentials(server *tsnet.Server, keyFile string) (err error) {
	if keyFile != "" {
		key, err := os.ReadFile(keyFile)
		if err != nil {
			return err
		}
		server.AuthKey = strings.TrimSpace(string(key))
	}
	if secret := os.Getenv("TS_KUBE_SECRET"); secret != "" {
		server.Store, err = kubestore.New(logger.Discard, secret)
	}
	return err
}

// advertise tells Headscale of networks behind the node.
func advertise(ctx context.Context, client *local.Client, routes []string) error {
	if len(routes) == 0 {
		return nil
	}
	prefs := &ipn.MaskedPrefs{AdvertiseRoutesSet: true}
	for _, route := range routes {
		prefix, err := netip.ParsePrefix(route)
		if err != nil {
			return err
		}
		prefs.AdvertiseRoutes = append(prefs.AdvertiseRoutes, prefix)
	}
	_, err := client.EditPrefs(ctx, prefs)
	return err
}

// serve answers on ports.
func serve(server *tsnet.Server, ports []string) error {
	for _, port := range ports {
		listener, err := server.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go func() {
			for {
				connection, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(connection, greeting)
				_ = connection.Close()
			}
		}()
	}
	return nil
}

// tries are what was found out about addresses.
type tries struct {
	addresses []string

	lock    sync.Mutex
	rounds  int
	reached []string
}

// run tries all addresses until the node is stopped.
func (t *tries) run(ctx context.Context, server *tsnet.Server) {
	for len(t.addresses) > 0 && ctx.Err() == nil {
		answered := make([]bool, len(t.addresses))
		var all sync.WaitGroup
		for i, address := range t.addresses {
			all.Go(func() { answered[i] = answers(ctx, server, address) })
		}
		all.Wait()
		t.lock.Lock()
		t.rounds, t.reached = t.rounds+1, nil
		for i, address := range t.addresses {
			if answered[i] {
				t.reached = append(t.reached, address)
			}
		}
		t.lock.Unlock()
		wait(ctx)
	}
}

// answers reports whether another node answers.
func answers(ctx context.Context, server *tsnet.Server, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	connection, err := server.Dial(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer func() { _ = connection.Close() }()
	_ = connection.SetDeadline(time.Now().Add(tryFor))
	text, _ := io.ReadAll(connection)
	return string(text) == greeting
}

// wait pauses.
func wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(reportEvery):
	}
}

// report prints the status until the node is stopped.
func report(ctx context.Context, client *local.Client, tries *tries) error {
	var now status
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
		tries.lock.Lock()
		now.Rounds, now.Reached = tries.rounds, tries.reached
		tries.lock.Unlock()
		if err := json.NewEncoder(os.Stdout).Encode(now); err != nil {
			return err
		}
		wait(ctx)
	}
}
