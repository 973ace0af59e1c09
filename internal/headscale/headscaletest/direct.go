package headscaletest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// Direct is the admin API of a Server with no socket between, with the methods of
// headscale.Client. It is for tests under testing/synctest, whose clock does not
// advance while a goroutine waits for a socket: give such a Server no socket path.
// Faults, Freeze and Stop strike it alike.
type Direct struct{ server *Server }

// Direct returns the admin API without a socket.
func (s *Server) Direct() Direct { return Direct{server: s} }

// ListAPIKeys is that of headscale.Client.
func (d Direct) ListAPIKeys(ctx context.Context) ([]headscale.APIKey, error) {
	return direct(ctx, d.server, List, func(database *Database) ([]headscale.APIKey, error) {
		masked := d.server.playing() != V027
		var keys []headscale.APIKey
		for _, key := range database.Keys() {
			listed := headscale.APIKey{ID: key.ID, Prefix: key.Prefix, CreatedAt: key.CreatedAt.UTC(), Masked: masked}
			if key.Expiration != nil {
				listed.Expiration = key.Expiration.UTC()
			}
			keys = append(keys, listed)
		}
		return keys, nil
	})
}

// CreateAPIKey is that of headscale.Client.
func (d Direct) CreateAPIKey(ctx context.Context, expiration time.Time) (headscale.Key, error) {
	return direct(ctx, d.server, Create, func(database *Database) (headscale.Key, error) {
		text := d.server.mint(database, expiration.UTC().Truncate(time.Microsecond))
		return headscale.NewKey(text), nil
	})
}

// ExpireAPIKey is that of headscale.Client.
func (d Direct) ExpireAPIKey(ctx context.Context, prefix string) error {
	_, err := direct(ctx, d.server, Expire, func(database *Database) (struct{}, error) {
		return struct{}{}, database.Expire(prefix, d.server.now())
	})
	return err
}

// direct performs an operation and waits for the result as long as a client would.
func direct[T any](
	caller context.Context, s *Server, operation Operation, work func(*Database) (T, error),
) (T, error) {
	type outcome struct {
		result T
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.err = s.perform(operation, func(database *Database) (err error) {
			o.result, err = work(database)
			return err
		})
		done <- o
	}()
	ctx, cancel := context.WithTimeout(caller, headscale.CallTimeout)
	defer cancel()
	var none T
	select {
	case o := <-done:
		if o.err != nil {
			return none, asClient(operation, o.err)
		}
		return o.result, nil
	case <-ctx.Done():
		if errors.Is(caller.Err(), context.Canceled) {
			return none, fmt.Errorf("%s: %w", operation, caller.Err())
		}
		return none, fmt.Errorf("%s: %w: %w", operation, headscale.ErrUnavailable, ctx.Err())
	}
}

// asClient returns the error that headscale.Client makes of one of the server.
func asClient(operation Operation, err error) error {
	switch {
	case errors.Is(err, errCut):
		return fmt.Errorf("%s: %w: %w", operation, headscale.ErrUnavailable, err)
	case errors.Is(err, errNotFound):
		return fmt.Errorf("%s: %w", operation, headscale.ErrNotFound)
	default:
		return fmt.Errorf("%s: %w", operation, err)
	}
}
