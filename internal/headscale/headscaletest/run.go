package headscaletest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"
)

// transport serves the admin API in one protocol.
type transport interface {
	// Serve returns when the listener is closed.
	Serve(net.Listener) error
	// Cut closes the listener and all connections at once.
	Cut()
}

// run is the time from a Start to the next Stop or Crash. It is the listener of its
// transport.
type run struct {
	server    *Server
	socket    *net.UnixListener // nil without a socket
	transport transport         // nil without a socket
	stopped   context.Context   // the life of the run, not of a call
	stop      context.CancelFunc
	inside    sync.WaitGroup // the transport and the calls in progress
}

// listen serves the release's transport on a socket. Like Headscale it removes a
// socket that a predecessor left.
func (r *run) listen(path string, release Release) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the old socket: %w", err)
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	r.socket = socket
	if release == V030 {
		r.transport = newHTTPTransport(r.server)
	} else {
		r.transport = newGRPCTransport(r.server, release)
	}
	r.inside.Go(func() { _ = r.transport.Serve(r) }) // ends with its listener
	return nil
}

// end returns when nothing of the run is left, but for the file of the socket if it is
// not to be unlinked.
func (r *run) end(unlink bool) {
	if r.transport != nil {
		r.socket.SetUnlinkOnClose(unlink) // before stop, on which Accept may let the socket be closed
	}
	r.stop()
	if r.transport != nil {
		r.transport.Cut()
	}
	r.inside.Wait()
}

// Accept holds connections back while the server is frozen.
func (r *run) Accept() (net.Conn, error) {
	conn, err := r.socket.Accept()
	if err != nil {
		return nil, err
	}
	if !r.wait(0) {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	return tracked{conn}, nil
}

func (r *run) Close() error   { return r.socket.Close() }
func (r *run) Addr() net.Addr { return r.socket.Addr() }

// wait lets the time pass, and then the frozen state if there is one. It returns false
// when the server was stopped before.
func (r *run) wait(delay time.Duration) bool {
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.stopped.Done():
			return false
		}
	}
	r.server.mu.Lock()
	thawed := r.server.thawed
	r.server.mu.Unlock()
	select {
	case <-thawed:
		return r.stopped.Err() == nil
	case <-r.stopped.Done():
		return false
	}
}

// tracked is a connection that can be found by its address, which gRPC hands to
// handlers. All clients of a Unix socket have the same address otherwise.
type tracked struct{ net.Conn }

func (t tracked) RemoteAddr() net.Addr { return trackedAddr{t} }

type trackedAddr struct{ conn tracked }

func (a trackedAddr) Network() string { return "unix" }
func (a trackedAddr) String() string  { return "@" }
