// Package listen keeps a server of the API Key Manager listening: it retries if its port is taken or
// lost, because what it serves is less important than the key. It also limits the connections of a
// server.
package listen

import (
	"context"
	"log/slog"
	"net"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Server listens on a TCP address for as long as the program runs.
type Server struct {
	// Name is what the log calls the server, at the beginning of a sentence.
	Name string
	// Address is host:port; the host may be left out.
	Address string
	// Serve answers requests until the context ends or the listener fails, and returns why
	// it ended.
	Serve func(ctx context.Context, listener net.Listener) error
	// Backoff returns the delays between attempts, from the shortest on.
	Backoff func() wait.Backoff
	Log     *slog.Logger
}

// Run serves until the context ends. It retries while the address cannot be
// listened on, and logs that once.
func (s Server) Run(ctx context.Context) {
	again := s.Backoff()
	failing := false
	for ctx.Err() == nil {
		problem := s.serve(ctx, func(address net.Addr) {
			if failing {
				s.Log.Info(s.Name+" is listening again", "address", address)
			}
			failing = false
			again = s.Backoff()
		})
		if !failing && ctx.Err() == nil {
			s.Log.Warn(s.Name+" failed; retrying", "address", s.Address, "message", problem)
		}
		failing = true
		pause(ctx, again.Step())
	}
}

// serve listens, logs that, and serves. It returns why it ended.
func (s Server) serve(ctx context.Context, listening func(net.Addr)) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	listening(listener.Addr())
	return s.Serve(ctx, listener)
}

// pause waits, unless the context ends.
func pause(ctx context.Context, length time.Duration) {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
