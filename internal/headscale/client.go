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
// It holds no connection between calls. They are few and a connection over a Unix
// socket costs less than a millisecond; one that is kept would have to be watched,
// for the Headscale behind it may go away, and come back speaking another protocol.
type Client struct {
	dial      Dialer
	timeout   time.Duration
	transport atomic.Int32
	closed    context.Context // ends the calls in progress when the client is closed
	close     context.CancelFunc
}

// Option changes a Client.
type Option func(*Client)

// WithCallTimeout replaces CallTimeout.
func WithCallTimeout(timeout time.Duration) Option {
	return func(c *Client) { c.timeout = timeout }
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
func (c *Client) Transport() Transport { return Transport(c.transport.Load()) }

// Close ends the calls in progress and refuses those to come, with ErrClosed.
func (c *Client) Close() error {
	c.close()
	return nil
}

// method is a method of the admin API over each transport. Its errors wrap
// ErrUnavailable unless Headscale answered with them.
type method[Answer any] struct {
	grpc func(context.Context, *grpcConn) (Answer, error)
	http func(context.Context, *httpConn) (Answer, error)
}

// call finds out the transport, connects and asks, all within the client's timeout.
func call[Answer any](caller context.Context, c *Client, m method[Answer]) (Answer, error) {
	ctx, cancel := context.WithTimeout(caller, c.timeout)
	defer cancel()
	stop := context.AfterFunc(c.closed, cancel)
	defer stop()

	answer, err := connectAndAsk(ctx, c, m)
	return answer, c.explain(ctx, caller, err)
}

// explain tells why there was no answer, where the reason is on this side.
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

func connectAndAsk[Answer any](ctx context.Context, c *Client, m method[Answer]) (none Answer, err error) {
	transport, err := probe(ctx, c.dial)
	if err != nil {
		return none, err
	}
	c.transport.Store(int32(transport))
	received := newTraffic()
	answer, err := ask(ctx, transport, received.limit(c.dial), m)
	if err != nil && received.exhausted() {
		return none, errTooLong
	}
	return answer, err
}

// ask connects and asks over a transport.
func ask[Answer any](ctx context.Context, transport Transport, dial Dialer, m method[Answer]) (none Answer, err error) {
	if transport == TransportHTTP {
		conn := newHTTPConn(dial)
		defer conn.close()
		return m.http(ctx, conn)
	}
	conn, err := newGRPCConn(dial)
	if err != nil {
		return none, err
	}
	defer conn.close()
	return m.grpc(withoutDeadline{ctx}, conn)
}
