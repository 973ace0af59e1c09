// Package headscale is a client of Headscale's admin API. Each resource of Headscale has
// a file of its own, with its calls over either transport.
//
// Headscale up to 0.29 speaks gRPC on its Unix socket, from 0.30 on HTTP/1.1 with JSON.
// A Client detects the transport for each call, and so works with a Headscale that is upgraded,
// downgraded or restarted behind the same path. A Dialer connects it, for both transports.
package headscale

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// CallTimeout is how long a call may take, from connecting to the whole answer.
// The slowest, creating a key, costs Headscale one bcrypt hash: some 200 ms on a
// small machine, which leaves room for one that is starved of CPU.
const CallTimeout = 10 * time.Second

// userAgent names this client in Headscale's log.
const userAgent = "headscale-operator"

// Client is Headscale's admin API. It is safe for concurrent use.
//
// Without WithKeepAlive it keeps no connection between calls. A new connection over a Unix socket
// costs less than a millisecond; a kept one may be to a Headscale that was restarted with another
// protocol.
type Client struct {
	dial      Dialer
	timeout   time.Duration
	token     Key
	keep      bool
	transport atomic.Int32
	closed    context.Context // ends the calls in progress when the client is closed
	close     context.CancelFunc

	mu   sync.Mutex
	idle *session // nil: none
}

// Option changes a Client.
type Option func(*Client)

// WithCallTimeout replaces CallTimeout.
func WithCallTimeout(timeout time.Duration) Option {
	return func(c *Client) { c.timeout = timeout }
}

// WithBearerToken sends an API key with each call, as the admin endpoint requires: over gRPC as
// metadata and over HTTP as a header. A call with a refused key fails with ErrUnauthorized.
func WithBearerToken(token Key) Option {
	return func(c *Client) { c.token = token }
}

// WithKeepAlive keeps one connection from call to call, until an error, or Close, ends it.
// Calls at the same time have connections of their own. It saves calls over TLS the handshake,
// which costs more than most calls.
func WithKeepAlive() Option {
	return func(c *Client) { c.keep = true }
}

// NewClient returns a client of the Headscale that the dialer connects to. It does not
// connect yet.
func NewClient(dial Dialer, options ...Option) *Client {
	c := &Client{dial: dial, timeout: CallTimeout}
	c.closed, c.close = context.WithCancel(context.Background())
	for _, option := range options {
		option(c)
	}
	return c
}

// Transport returns the transport that was last detected.
//
// No release reports its version on its socket. A caller that needs it takes it from the spec of
// the Headscale. Calls of this package that depend on the release detect it from the answers.
func (c *Client) Transport() Transport { return Transport(c.transport.Load()) }

// Close ends the calls in progress and refuses those to come, with ErrClosed.
func (c *Client) Close() error {
	c.close()
	if kept := c.takeIdle(); kept != nil {
		kept.close()
	}
	return nil
}

// method is a method of the admin API over each transport. Its errors wrap
// ErrUnavailable unless Headscale answered with them.
type method[Answer any] struct {
	grpc func(context.Context, *grpcConn) (Answer, error)
	http func(context.Context, *httpConn) (Answer, error)
	// limit is how many bytes an answer may have. Zero: answerLimit.
	limit int
	// means maps words of a refusal to errors.
	means meanings
	// timeouts is how many times the client's timeout it may take. Zero: once.
	timeouts int
}

// call connects and sends the request, all within the client's timeout, or the multiple of it that
// the method may take.
func call[Answer any](caller context.Context, c *Client, m method[Answer]) (Answer, error) {
	ctx, cancel := context.WithTimeout(caller, c.timeout*time.Duration(max(m.timeouts, 1)))
	defer cancel()
	stop := context.AfterFunc(c.closed, cancel)
	defer stop()

	answer, err := connectAndAsk(ctx, c, m)
	return answer, c.explain(ctx, caller, m.means.interpret(err))
}

// explain returns why there was no answer, if the reason is on the client's side.
func (c *Client) explain(ctx, caller context.Context, err error) error {
	switch {
	case !errors.Is(err, ErrUnavailable):
		return err
	case c.closed.Err() != nil:
		return ErrClosed
	case errors.Is(caller.Err(), context.Canceled):
		return caller.Err()
	case ctx.Err() != nil:
		return fmt.Errorf("%w in time: %w", ErrUnavailable, ctx.Err())
	default:
		return err
	}
}

// connectAndAsk sends a request over the kept connection, or else over a new one. If the kept one
// turns out to have ended before anything was sent, a new one replaces it.
func connectAndAsk[Answer any](ctx context.Context, c *Client, m method[Answer]) (answer Answer, err error) {
	for {
		s := c.takeIdle()
		kept := s != nil
		if !kept {
			if s, err = c.connect(ctx); err != nil {
				return answer, err
			}
		}
		answer, err = ask(ctx, s, m)
		c.release(s, err)
		if !kept || !s.ended() {
			return answer, err
		}
	}
}

// connect opens a session, and records the detected transport.
func (c *Client) connect(ctx context.Context) (*session, error) {
	conn, transport, err := dialAndProbe(ctx, c.dial)
	if err != nil {
		return nil, err
	}
	c.transport.Store(int32(transport))
	return newSession(conn, transport, c.token, c.keep)
}

// takeIdle takes the kept session. It returns nil if there is none.
func (c *Client) takeIdle() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.idle
	c.idle = nil
	return kept
}

// release keeps a session for the next call, or closes it. One is kept only after a call that
// came to its end: an answer, or a refusal of Headscale.
func (c *Client) release(s *session, err error) {
	if c.keep && (err == nil || errors.Is(err, ErrRefused)) {
		s = c.putIdle(s)
	}
	if s != nil {
		s.close()
	}
}

// putIdle keeps a session, and returns what is to be closed instead: nil, or the session where
// another is kept or the client was closed.
func (c *Client) putIdle(s *session) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil || c.closed.Err() != nil {
		return s
	}
	c.idle = s
	return nil
}
