package preauthkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// backend has pre-auth keys issued by a Headscale. What it lists is the snapshot that all objects
// share, with what was changed here since.
type backend struct {
	instance *instance.Instance
	want     headscale.NewPreAuthKey
	now      func() time.Time
	// undeleted are the ids of keys that are expired and could not be deleted, and failed is called for each.
	undeleted map[string]bool
	failed    func(err error)
}

// List returns all keys that the snapshot has.
func (b *backend) List(ctx context.Context) ([]credential, error) {
	snapshot, err := b.instance.Keys(ctx)
	if err != nil {
		return nil, err
	}
	keys := snapshot.Keys()
	credentials := make([]credential, len(keys))
	for i := range keys {
		credentials[i] = credentialOf(&keys[i])
	}
	return credentials, nil
}

// Create has a key made.
func (b *backend) Create(ctx context.Context, expiration time.Time) (text rotation.Text, id string, err error) {
	asked := b.want
	asked.Expiration = expiration
	err = b.instance.Write(ctx, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		made, err := api.CreatePreAuthKey(ctx, asked)
		if err != nil {
			return refusal(err)
		}
		text, id = made.Key, idOf(made.Key)
		snapshot.PutKey(made)
		return nil
	})
	return text, id, err
}

// Expire has a key refused. Whether it is, the next list shows. That it cannot be deleted as well is no
// error: it is tried again by deleteExpired.
func (b *backend) Expire(ctx context.Context, id string) error {
	expired := false
	err := b.instance.Write(ctx, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		for _, key := range snapshot.Keys() {
			if idOf(key.Key) != id {
				continue
			}
			if err := b.expire(ctx, api, snapshot, key); err != nil {
				return err
			}
			expired = true
			return b.dispose(ctx, api, snapshot, &key)
		}
		return nil
	})
	if expired && err != nil {
		b.undeleted[id] = true
		b.failed(err)
		return nil
	}
	return err
}

// deleteExpired tries again to delete the expired keys that could not be deleted.
func (b *backend) deleteExpired(ctx context.Context) error {
	if len(b.undeleted) == 0 {
		return nil
	}
	return b.instance.Write(ctx, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		for _, key := range snapshot.Keys() {
			if !b.undeleted[idOf(key.Key)] || b.now().Before(timeOf(key.Expiration)) {
				continue
			}
			if err := b.dispose(ctx, api, snapshot, &key); err != nil {
				return err
			}
		}
		clear(b.undeleted)
		return nil
	})
}

func (b *backend) expire(ctx context.Context, api instance.API, snapshot *instance.Snapshot, key headscale.PreAuthKey) error {
	err := api.ExpirePreAuthKey(ctx, key)
	if errors.Is(err, headscale.ErrPreAuthKeyNotFound) {
		snapshot.DropKey(key.ID)
		return nil
	}
	if err != nil {
		return fmt.Errorf("expiring the pre-auth key %d: %w", key.ID, err)
	}
	now := b.now().UTC()
	key.Expiration = &now
	snapshot.PutKey(key)
	return nil
}

// dispose deletes an expired key, if there is no node that has registered with it: Headscale keeps keys
// for ever, and lists have an end. Of one with which a node has, Headscale still reads whether that is
// ephemeral. (It stays when the node has gone, too: once it is expired, nothing tells whose it was.)
func (b *backend) dispose(ctx context.Context, api instance.API, snapshot *instance.Snapshot, key *headscale.PreAuthKey) error {
	nodes, err := api.ListNodes(ctx)
	if err != nil {
		return fmt.Errorf("looking for nodes of the expired pre-auth key %d: %w", key.ID, err)
	}
	if slices.ContainsFunc(nodes, func(node headscale.Node) bool { return node.PreAuthKeyID == key.ID }) {
		return nil
	}
	err = api.DeletePreAuthKey(ctx, key.ID)
	switch {
	case errors.Is(err, headscale.ErrUnsupported): // up to 0.27
		return nil
	case err != nil && !errors.Is(err, headscale.ErrPreAuthKeyNotFound):
		return fmt.Errorf("deleting the expired pre-auth key %d: %w", key.ID, err)
	}
	snapshot.DropKey(key.ID)
	return nil
}

// refusal is what follows from an error of the call that makes a key.
func refusal(err error) error {
	var refused *headscale.Refusal
	switch {
	case errors.Is(err, headscale.ErrUserNotFound):
		return status.Later(userRetry, &instance.Problem{Because: v1beta1.ReasonUserMissing, Message: fmt.Sprintf("Headscale does not have the user of the key: %v", err), Cause: err})
	case errors.Is(err, headscale.ErrUnauthorized), errors.Is(err, headscale.ErrUnsupported), !errors.As(err, &refused):
		return err
	default:
		return status.Later(refusedRetry, &instance.Problem{Because: v1beta1.ReasonRefused, Lasting: true, Message: fmt.Sprintf("Cannot create a pre-auth key: %s", refused.Error()), Cause: err})
	}
}
