package apikey

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// Admin is the part of Headscale's admin API that the Manager needs.
type Admin interface {
	// ListAPIKeys returns all keys that Headscale knows, expired ones too.
	ListAPIKeys(ctx context.Context) ([]headscale.APIKey, error)
	// CreateAPIKey makes a key that expires at the given instant.
	CreateAPIKey(ctx context.Context, expiration time.Time) (headscale.Key, error)
	// ExpireAPIKey makes Headscale refuse a key from now on.
	ExpireAPIKey(ctx context.Context, prefix string) error
}

// backend has API keys issued by Headscale, which knows them by their prefix.
type backend struct {
	admin Admin
	// beat is called before each call of which there may be many in a row.
	beat func()
}

func (b backend) List(ctx context.Context) ([]rotation.Credential[headscale.APIKey], error) {
	b.beat()
	keys, err := b.admin.ListAPIKeys(ctx)
	if err != nil {
		return nil, err
	}
	credentials := make([]rotation.Credential[headscale.APIKey], len(keys))
	for i, key := range keys {
		credentials[i] = credentialOf(key)
	}
	return credentials, nil
}

func credentialOf(key headscale.APIKey) rotation.Credential[headscale.APIKey] {
	return rotation.Credential[headscale.APIKey]{ID: key.Prefix, Expiration: key.Expiration, CreatedAt: key.CreatedAt, Facts: key}
}

func (b backend) Create(ctx context.Context, expiration time.Time) (rotation.Text, string, error) {
	key, err := b.admin.CreateAPIKey(ctx, expiration)
	if err != nil {
		return nil, "", err
	}
	if prefix, known := key.Prefix(); known {
		return key, prefix, nil
	}
	prefix, err := b.listedPrefix(ctx, key, expiration)
	return key, prefix, err
}

// listedPrefix finds the prefix of a new key whose text does not have it, because its format
// is of a later release.
func (b backend) listedPrefix(ctx context.Context, key headscale.Key, expiration time.Time) (string, error) {
	keys, err := b.admin.ListAPIKeys(ctx)
	if err != nil {
		return "", fmt.Errorf("looking for the new key in Headscale's list: %w", err)
	}
	for _, listed := range keys {
		if listed.Expiration.Equal(expiration) && strings.Contains(key.Reveal(), listed.Prefix) {
			return listed.Prefix, nil
		}
	}
	return "", errors.New("the key that Headscale created is not in Headscale's list by its expiration and a part of its text")
}

func (b backend) Expire(ctx context.Context, prefix string) error {
	b.beat()
	if err := b.admin.ExpireAPIKey(ctx, prefix); err != nil && !errors.Is(err, headscale.ErrNotFound) {
		return fmt.Errorf("expiring the API key %s: %w", prefix, err)
	}
	return nil
}
