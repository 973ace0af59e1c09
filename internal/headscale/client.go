// Package headscale speaks Headscale's admin API over its Unix socket, as far as
// API keys go: list, create, expire.
//
// Headscale up to 0.29 speaks gRPC there, from 0.30 on HTTP/1.1 with JSON. A
// Client finds out by itself, anew for each call, and so follows a Headscale that
// is upgraded, downgraded or restarted behind the same path.
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

// listLimit is how many bytes a list of API keys may have: about 80 000 keys.
const listLimit = 16 << 20

// userAgent names this client in Headscale's log.
const userAgent = "headscale-operator"

// APIKey is one entry of Headscale's list.
type APIKey struct {
	// ID is Headscale's number of the key.
	ID uint64
	// Prefix is the bare prefix: 7, 10 or 12 characters.
	Prefix string
	// Expiration is when the key expires, UTC. Zero: never.
	Expiration time.Time
	// CreatedAt is when the key was created, UTC, by Headscale's clock.
	CreatedAt time.Time
	// Masked says that the list showed the prefix as "hskey-api-<12>-***" or
	// "<7>***", as Headscale does from 0.28 on.
	Masked bool
}

// newAPIKey makes an entry of what either transport says. Where nobody gave an
// expiration, Headscale stores its zero time, year 1, and means long expired;
// here the zero time means never, so that one becomes the Unix epoch.
func newAPIKey(id uint64, listed string, expiration, created *time.Time) APIKey {
	key := APIKey{ID: id}
	key.Prefix, key.Masked = unmaskPrefix(listed)
	if expiration != nil {
		key.Expiration = expiration.UTC()
		if expiration.IsZero() {
			key.Expiration = time.Unix(0, 0).UTC()
		}
	}
	if created != nil {
		key.CreatedAt = created.UTC()
	}
	return key
}

// Client is Headscale's admin API. It is safe for concurrent use.
//
// It holds no connection between calls. They are few and a connection over a Unix
// socket costs less than a millisecond; one that is kept would have to be watched,
// for the Headscale behind it may go away, and come back speaking another protocol.
type Client struct {
	path      string
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

// NewClient returns a client of the Headscale that listens, or will listen, on the
// Unix socket at the path. It does not connect.
func NewClient(socketPath string, options ...Option) *Client {
	c := &Client{path: socketPath, timeout: CallTimeout}
	c.closed, c.close = context.WithCancel(context.Background())
	for _, option := range options {
		option(c)
	}
	return c
}

// ListAPIKeys returns every key that Headscale has, expired ones too.
func (c *Client) ListAPIKeys(ctx context.Context) ([]APIKey, error) {
	var keys []APIKey
	err := c.call(ctx, func(ctx context.Context, api adminAPI) (err error) {
		keys, err = api.list(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing API keys: %w", err)
	}
	return keys, nil
}

// CreateAPIKey makes a key that is valid until the expiration, which is cut to the
// microsecond: every Headscale and both its databases keep that much.
//
// After an error that wraps ErrUnavailable the key may exist nevertheless, and may
// appear in the list even later. A zero expiration is refused, because Headscale
// would make a key of it that was never valid.
func (c *Client) CreateAPIKey(ctx context.Context, expiration time.Time) (Key, error) {
	if expiration.IsZero() {
		return Key{}, errors.New("creating an API key: the expiration is not set")
	}
	var key Key
	err := c.call(ctx, func(ctx context.Context, api adminAPI) error {
		text, err := api.create(ctx, expiration.UTC().Truncate(time.Microsecond))
		if err == nil && text == "" {
			err = errors.New("the answer of Headscale holds no key")
		}
		key = NewKey(text)
		return err
	})
	if err != nil {
		return Key{}, fmt.Errorf("creating an API key: %w", err)
	}
	return key, nil
}

// ExpireAPIKey ends the validity of the key with the bare prefix now. It returns an
// error that wraps ErrNotFound when Headscale does not know the prefix. To expire a
// key that is expired is no error.
func (c *Client) ExpireAPIKey(ctx context.Context, prefix string) error {
	if prefix == "" {
		return errors.New("expiring an API key: the prefix is empty")
	}
	if _, whole := NewKey(prefix).Prefix(); whole {
		return errors.New("expiring an API key: give its prefix, not the whole key")
	}
	err := c.call(ctx, func(ctx context.Context, api adminAPI) error {
		return api.expire(ctx, prefix)
	})
	if err != nil {
		return fmt.Errorf("expiring an API key: %w", err)
	}
	return nil
}

// Transport returns what Headscale was last found to speak.
func (c *Client) Transport() Transport { return Transport(c.transport.Load()) }

// Close ends the calls in progress and refuses those to come, with ErrClosed.
func (c *Client) Close() error {
	c.close()
	return nil
}

// adminAPI is a connection to Headscale's admin API over one transport. Its errors
// wrap ErrUnavailable unless Headscale answered with them.
type adminAPI interface {
	list(ctx context.Context) ([]APIKey, error)
	create(ctx context.Context, expiration time.Time) (text string, err error)
	expire(ctx context.Context, prefix string) error
	close()
}

// call finds out the transport, connects and asks, all within the client's timeout.
func (c *Client) call(caller context.Context, ask func(context.Context, adminAPI) error) error {
	ctx, cancel := context.WithTimeout(caller, c.timeout)
	defer cancel()
	stop := context.AfterFunc(c.closed, cancel)
	defer stop()

	err := c.connectAndAsk(ctx, ask)
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

func (c *Client) connectAndAsk(ctx context.Context, ask func(context.Context, adminAPI) error) error {
	transport, err := probe(ctx, c.path)
	if err != nil {
		return err
	}
	c.transport.Store(int32(transport))
	api, err := connect(transport, c.path)
	if err != nil {
		return err
	}
	defer api.close()
	return ask(ctx, api)
}
