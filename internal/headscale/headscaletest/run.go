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

// run is the time from a Start to the next Stop or Crash. It is the listener of its
// transport.
type run struct {
	*net.UnixListener
	server  *Server
	stopped context.Context // the life of the run, not of a call
	stop    context.CancelFunc
	cut     func()         // closes the listener and all connections at once
	inside  sync.WaitGroup // the transport and the calls in progress
}

// startRun serves the release's transport on the socket.
func startRun(s *Server, release Release) (*run, error) {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the old socket: %w", err)
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	r := &run{UnixListener: socket, server: s}
	r.stopped, r.stop = context.WithCancel(context.Background())
	var serve func(net.Listener) error
	if release == V030 {
		transport := newHTTPServer(s)
		serve, r.cut = transport.Serve, func() { _ = transport.Close() }
	} else {
		transport := NewGRPCServer(&grpcService{server: s, release: release}, s.perform)
		serve, r.cut = transport.Serve, transport.Stop
	}
	r.inside.Go(func() { _ = serve(Trackable{r}) }) // ends with its listener
	return r, nil
}

// end returns when nothing of the run is left, but for the file of the socket if it is
// not to be unlinked.
func (r *run) end(unlink bool) {
	r.SetUnlinkOnClose(unlink) // before stop, on which Accept may let the socket be closed
	r.stop()
	r.cut()
	r.inside.Wait()
}

// Accept holds connections back while the server is frozen.
func (r *run) Accept() (net.Conn, error) {
	conn, err := r.UnixListener.Accept()
	if err == nil && !r.wait(0) {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	return conn, err
}

// wait lets the time pass, and then the frozen state if there is one. It returns false
// when the server was stopped before.
func (r *run) wait(delay time.Duration) bool {
	select {
	case <-time.After(delay):
	case <-r.stopped.Done():
	}
	r.server.mu.Lock()
	thawed := r.server.thawed
	r.server.mu.Unlock()
	if thawed != nil {
		select {
		case <-thawed:
		case <-r.stopped.Done():
		}
	}
	return r.stopped.Err() == nil
}
