package headscale

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The paths of API keys over HTTP.
const (
	apiKeysPath      = "/api/v1/apikey"
	expireAPIKeyPath = "/api/v1/apikey/expire"
)

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

// appendAPIKey appends an entry of what either transport says, unless its prefix or its
// times are such as no Headscale has: they get into logs and into a Secret. Where nobody
// gave an expiration, Headscale stores its zero time, year 1, and means long expired; here
// the zero time means never, so that one becomes the Unix epoch.
func appendAPIKey(keys []APIKey, id uint64, listed string, expiration, created *time.Time) []APIKey {
	key := APIKey{ID: id}
	key.Prefix, key.Masked = unmaskPrefix(listed)
	if !validPrefix(key.Prefix) || expiration != nil && !validTime(*expiration) || created != nil && !validTime(*created) {
		return keys
	}
	if expiration != nil {
		key.Expiration = expiration.UTC()
		if expiration.IsZero() {
			key.Expiration = time.Unix(0, 0).UTC()
		}
	}
	if created != nil {
		key.CreatedAt = created.UTC()
	}
	return append(keys, key)
}

// ListAPIKeys returns every key that Headscale has, expired ones too. An entry that no
// Headscale makes is left out, and a list of more than 20 000 entries is an error.
func (c *Client) ListAPIKeys(ctx context.Context) ([]APIKey, error) {
	keys, err := call(ctx, c, method[[]APIKey]{grpc: listAPIKeysOverGRPC, http: listAPIKeysOverHTTP})
	if err != nil {
		return nil, fmt.Errorf("listing API keys: %w", hintExpired(err))
	}
	return keys, nil
}

// hintExpired says what to do about a list that is too long.
func hintExpired(err error) error {
	if tooMuch(err) {
		return fmt.Errorf("%w; if these are expired API keys, delete them in Headscale", err)
	}
	return err
}

func listAPIKeysOverGRPC(ctx context.Context, conn *grpcConn) ([]APIKey, error) {
	answer, err := conn.stub.ListApiKeys(ctx, &v1.ListApiKeysRequest{})
	if err != nil {
		return nil, conn.failure(err)
	}
	keys := make([]APIKey, 0, len(answer.GetApiKeys()))
	for _, listed := range answer.GetApiKeys() {
		keys = appendAPIKey(keys, listed.GetId(), listed.GetPrefix(),
			timeOf(listed.GetExpiration()), timeOf(listed.GetCreatedAt()))
	}
	return keys, nil
}

func listAPIKeysOverHTTP(ctx context.Context, conn *httpConn) ([]APIKey, error) {
	var answer struct {
		APIKeys boundedList[struct {
			ID         uint64     `json:"id,string"` // as in the JSON form of protobuf
			Prefix     string     `json:"prefix"`
			Expiration *time.Time `json:"expiration"`
			CreatedAt  *time.Time `json:"createdAt"`
		}] `json:"apiKeys"`
	}
	if err := conn.exchange(ctx, http.MethodGet, apiKeysPath, nil, &answer); err != nil {
		return nil, err
	}
	keys := make([]APIKey, 0, len(answer.APIKeys))
	for _, listed := range answer.APIKeys {
		keys = appendAPIKey(keys, listed.ID, listed.Prefix, listed.Expiration, listed.CreatedAt)
	}
	return keys, nil
}

// CreateAPIKey makes a key that is valid until the expiration, which is cut to the
// microsecond: every Headscale and both its databases keep that much.
//
// After an error that wraps ErrUnavailable the key may exist nevertheless, and may
// appear in the list even later. A zero expiration is refused, because Headscale
// would make a key of it that was never valid. What is returned has the characters and
// the length of a key.
func (c *Client) CreateAPIKey(ctx context.Context, expiration time.Time) (Key, error) {
	if expiration.IsZero() {
		return Key{}, errors.New("creating an API key: the expiration is not set")
	}
	text, err := call(ctx, c, createAPIKey(expiration.UTC().Truncate(time.Microsecond)))
	if err == nil {
		err = checkKey(text)
	}
	if err != nil {
		return Key{}, fmt.Errorf("creating an API key: %w", hintExpired(err))
	}
	return NewKey(text), nil
}

func createAPIKey(expiration time.Time) method[string] {
	return method[string]{
		grpc: func(ctx context.Context, conn *grpcConn) (string, error) {
			answer, err := conn.stub.CreateApiKey(ctx, &v1.CreateApiKeyRequest{Expiration: timestamppb.New(expiration)})
			if err != nil {
				return "", conn.failure(err)
			}
			return answer.GetApiKey(), nil
		},
		http: func(ctx context.Context, conn *httpConn) (string, error) {
			request := map[string]string{"expiration": expiration.Format(timeLayout)}
			var answer struct {
				APIKey string `json:"apiKey"`
			}
			err := conn.exchange(ctx, http.MethodPost, apiKeysPath, request, &answer)
			return answer.APIKey, err
		},
	}
}

// ExpireAPIKey ends the validity of the key with the bare prefix now. It returns an
// error that wraps ErrNotFound when Headscale does not know the prefix. To expire a
// key that is expired is no error.
//
// Up to 0.29 Headscale refuses an unknown prefix with the same code as everything else, so
// whether it knows the prefix is looked up in its list.
func (c *Client) ExpireAPIKey(ctx context.Context, prefix string) error {
	if prefix == "" {
		return errors.New("expiring an API key: the prefix is empty")
	}
	if _, whole := NewKey(prefix).Prefix(); whole {
		return errors.New("expiring an API key: give its prefix, not the whole key")
	}
	_, err := call(ctx, c, expireAPIKey(prefix))
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrUnavailable) && c.lacksAPIKey(ctx, prefix) {
		err = ErrNotFound
	}
	return fmt.Errorf("expiring an API key: %w", err)
}

// lacksAPIKey reports whether Headscale says that it has no key with the prefix.
func (c *Client) lacksAPIKey(ctx context.Context, prefix string) bool {
	keys, err := c.ListAPIKeys(ctx)
	return err == nil && !slices.ContainsFunc(keys, func(key APIKey) bool { return key.Prefix == prefix })
}

// expireAPIKey names the key by its prefix, which every release takes; only 0.28 and
// 0.29 take an id as well.
func expireAPIKey(prefix string) method[struct{}] {
	return method[struct{}]{
		grpc: func(ctx context.Context, conn *grpcConn) (none struct{}, err error) {
			if _, err = conn.stub.ExpireApiKey(ctx, &v1.ExpireApiKeyRequest{Prefix: prefix}); err != nil {
				return none, conn.failure(err)
			}
			return none, nil
		},
		http: func(ctx context.Context, conn *httpConn) (none struct{}, err error) {
			return none, conn.exchange(ctx, http.MethodPost, expireAPIKeyPath, map[string]string{"prefix": prefix}, nil)
		},
	}
}
