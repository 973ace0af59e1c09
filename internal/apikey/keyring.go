package apikey

import (
	"context"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// Keyring is told which keys somebody else is to accept, at the moment from which on that
// holds. Whoever reads the Secret finds a key that is accepted, and no key is accepted that
// Headscale was told to refuse.
type Keyring interface {
	// Accept is called before a key can be read in the Secret, and for the one that was found
	// there. The expiration is zero where the key has none.
	Accept(prefix string, key headscale.Key, expiration time.Time)
	// Refuse is called before Headscale is told to refuse a key.
	Refuse(prefix string)
	// Listed is called with each list of Headscale's keys, expired ones too.
	Listed(keys []headscale.APIKey)
}

// noKeyring is a Keyring of nobody.
type noKeyring struct{}

func (noKeyring) Accept(string, headscale.Key, time.Time) {}
func (noKeyring) Refuse(string)                           {}
func (noKeyring) Listed([]headscale.APIKey)               {}

// keyedAdmin reports to a Keyring what Headscale says about the keys, and what it is asked to do.
type keyedAdmin struct {
	Admin
	keyring Keyring
}

func (k keyedAdmin) ListAPIKeys(ctx context.Context) ([]headscale.APIKey, error) {
	keys, err := k.Admin.ListAPIKeys(ctx)
	if err == nil {
		k.keyring.Listed(keys)
	}
	return keys, err
}

func (k keyedAdmin) ExpireAPIKey(ctx context.Context, prefix string) error {
	k.keyring.Refuse(prefix)
	return k.Admin.ExpireAPIKey(ctx, prefix)
}

// acceptStored has the key accepted that was found in the Secret, if it is the one that was
// stored there and Headscale accepts it.
func acceptStored(keyring Keyring, v View) {
	if v.Record == nil || !v.Record.Ours || !v.Record.Intact() {
		return
	}
	stored := v.Stored()
	if stored == nil {
		return
	}
	if _, _, refused := notAccepted(v); !refused {
		keyring.Accept(stored.ID, keyOf(v.Record), stored.Expiration)
	}
}
