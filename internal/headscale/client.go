// Package headscale is a client of Headscale's admin API. Each resource of Headscale has
// a file of its own, with its calls over either transport.
//
// Headscale up to 0.29 speaks gRPC on its Unix socket, from 0.30 on HTTP/1.1 with JSON.
// A Client finds out by itself, for each call, and so follows a Headscale that is
// upgraded, downgraded or restarted behind the same path. Where it connects to is a
// Dialer's business, and the same for both transports.
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
// Unless it is told to by WithKeepAlive, it holds no connection between calls. A connection
// over a Unix socket costs less than a millisecond; one that is kept may be to a Headscale
// that has gone away, and come back speaking another protocol.
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

// WithBearerToken sends an API key with each call, as the admin endpoint wants it: over gRPC
// as metadata and over HTTP as a header. One that is refused is ErrUnauthorized.
func WithBearerToken(token Key) Option {
	return func(c *Client) { c.token = token }
}

// WithKeepAlive keeps one connection from call to call, until an error, or Close, ends it.
// Calls at the same time have connections of their own. It spares calls over TLS their
// handshake, which costs more than most of what is asked for.
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

// Transport returns what Headscale was last found to speak.
//
// It is all that is known of the release: none reports its version on its socket. A caller that has to
// know more takes it from the spec of the Headscale, or from what a call answers: where it
// makes a difference here, the calls find out by themselves.
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
	// means returns what words of a refusal mean.
	means meanings
	// timeouts is how many times the client's timeout it may take. Zero: once.
	timeouts int
}

// call connects and asks, all within the client's timeout, or as many of it as the method may take.
func call[Answer any](caller context.Context, c *Client, m method[Answer]) (Answer, error) {
	ctx, cancel := context.WithTimeout(caller, c.timeout*time.Duration(max(m.timeouts, 1)))
	defer cancel()
	stop := context.AfterFunc(c.closed, cancel)
	defer stop()

	answer, err := connectAndAsk(ctx, c, m)
	return answer, c.explain(ctx, caller, m.means.interpret(err))
}

// explain says why there was no answer, where the reason is on this side.
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

// connectAndAsk asks over the connection that was kept, or else over a new one. One that was
// kept may turn out to have ended before anything was sent: then another is made.
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

// connect opens a session, and remembers what Headscale speaks.
func (c *Client) connect(ctx context.Context) (*session, error) {
	conn, transport, err := dialAndProbe(ctx, c.dial)
	if err != nil {
		return nil, err
	}
	c.transport.Store(int32(transport))
	return newSession(conn, transport, c.token, c.keep)
}

// takeIdle takes over the session that was kept. It returns nil where there is none.
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
