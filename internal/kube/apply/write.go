package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"infrado.cloud/headscale-operator/internal/kube/kubeapi"
)

// anyVersion is a resource version that no object has: those of stored objects are the revisions of
// etcd, which begin with 2. An apply with it either creates the object or fails.
const anyVersion = "1"

// change is one object that is to be written.
type change[C Configuration, T any, O Object[T]] struct {
	plan *Plan
	spec Spec[C, O]
	want C
	// wanted is the digest of the desired state, before the spec's KeepImmutable.
	wanted digest
	// live is the object as it is, nil where there is none, planned as it would be, and written
	// as the API server stored it.
	live, planned, written O
}

// check prepares an existing object: it takes ownership of what others put in the place of ours, so
// that the write removes it. If the spec says so, it does a dry run, and it calls the gate. Only a
// refusal of the desired state counts: with a webhook without dry-run support, for example, the
// write decides.
func (c *change[C, T, O]) check(ctx context.Context) error {
	if c.live == nil {
		return c.pass(ctx)
	}
	e, err := c.edits()
	if err != nil {
		return err
	}
	if err := c.takeOver(ctx, e, e.outdated().Union(e.displacing())); err != nil {
		return err
	}
	if !c.spec.DryRun {
		return nil
	}
	if err := c.sendOrTakeOver(ctx, c.dryRun); apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		return err
	}
	return c.pass(ctx)
}

// pass calls the gate.
func (c *change[C, T, O]) pass(ctx context.Context) error {
	if c.spec.Gate == nil {
		return nil
	}
	return c.spec.Gate(ctx, c.live, c.planned)
}

// write applies the object, and remembers what the API server made of it.
func (c *change[C, T, O]) write(ctx context.Context) error {
	if err := c.sendOrTakeOver(ctx, c.send); err != nil {
		return err
	}
	notify(c.spec.OnObserve, c.written)
	if c.live == nil {
		notify(c.spec.OnCreate, c.written)
	}
	return c.remember()
}

// remember notes that this version of the object needs no write. What the API server made of the applied fields is not
// extracted of a new object: that takes far more memory than all else here, and most API servers change
// nothing. Where one does, the next apply of the object shows it.
func (c *change[C, T, O]) remember() error {
	now := known{wanted: c.wanted, resourceVersion: c.written.GetResourceVersion()}
	if c.live != nil {
		owned, err := c.spec.Extract(c.written, c.plan.fieldManager)
		if err != nil {
			return fmt.Errorf("reading the applied fields of the %s: %w", Name(c.want), err)
		}
		if now.owned, err = digestOf(owned); err != nil {
			return err
		}
	}
	c.plan.clients.Memory.note(client.ObjectKeyFromObject(c.plan.owner), Name(c.want), now)
	return nil
}

// sendOrTakeOver sends an apply. If the API server refuses it because of changes by others in the
// object, it takes ownership of the conflicting fields and sends the apply again.
func (c *change[C, T, O]) sendOrTakeOver(ctx context.Context, send func(context.Context) error) error {
	err := send(ctx)
	causes := kubeapi.InvalidFields(err)
	if c.live == nil || len(causes) == 0 {
		return err
	}
	e, editsErr := c.edits()
	if editsErr != nil {
		return errors.Join(err, editsErr)
	}
	managers := e.managers()
	if len(managers) == 0 || !c.validAlone(ctx) {
		return err
	}
	if near := e.near(causes); !near.Empty() {
		if takeErr := c.takeOver(ctx, e, near); takeErr != nil {
			return takeErr
		}
		if err = send(ctx); len(kubeapi.InvalidFields(err)) == 0 {
			return err
		}
	}
	return &EditedError{Kind: *c.want.GetKind(), Name: *c.want.GetName(), Namespace: *c.want.GetNamespace(), Managers: managers, Err: err}
}

// send applies the object. One that exists must still be the one that was compared; one
// that does not exist must not have been created in the meantime.
func (c *change[C, T, O]) send(ctx context.Context) error {
	sent, err := document(c.want)
	if err != nil {
		return err
	}
	if c.live != nil {
		sent.SetUID(c.live.GetUID())
		c.written, err = c.request(ctx, sent, client.ForceOwnership)
	} else {
		sent.SetResourceVersion(anyVersion)
		c.written, err = c.request(ctx, sent)
	}
	return err
}

// dryRun checks whether an existing object can be changed to its desired state.
func (c *change[C, T, O]) dryRun(ctx context.Context) error {
	sent, err := document(c.want)
	if err != nil {
		return err
	}
	sent.SetUID(c.live.GetUID())
	c.planned, err = c.request(ctx, sent, client.ForceOwnership, client.DryRunAll)
	return err
}

// validAlone checks whether the desired state is valid without the fields of others: as a new
// object of another name. Admission policies may refuse that object, but they run after the API
// server's own validation.
func (c *change[C, T, O]) validAlone(ctx context.Context) bool {
	sent, err := document(c.want)
	if err != nil {
		return false
	}
	sent.SetName(aloneName(Name(c.want)))
	_, err = c.request(ctx, sent, client.DryRunAll)
	return err == nil || len(kubeapi.InvalidFields(err)) == 0 && (apierrors.IsInvalid(err) || apierrors.IsForbidden(err))
}

// aloneName is a name that no object has and that is valid for every kind, even if the object's own
// name is long.
func aloneName(object string) string {
	sum := sha256.Sum256([]byte(object))
	return "alone-" + hex.EncodeToString(sum[:8])
}

// request sends an apply, and returns the object as the API server made it; nil with an error. It is
// sent as a patch because the reply is decoded into the object's type then, in protobuf: to
// client.Apply, the API server answers in JSON.
func (c *change[C, T, O]) request(ctx context.Context, sent *unstructured.Unstructured, options ...client.PatchOption) (O, error) {
	raw, err := sent.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encoding the %s: %w", Name(c.want), err)
	}
	object := O(new(T))
	object.SetNamespace(sent.GetNamespace())
	object.SetName(sent.GetName())
	options = append(options, client.FieldOwner(c.plan.fieldManager))
	if err := c.plan.clients.Writer.Patch(ctx, object, client.RawPatch(types.ApplyPatchType, raw), options...); err != nil {
		return nil, fmt.Errorf("applying the %s: %w", Name(c.want), err)
	}
	return object, nil
}

// edits compares the object with its desired state.
func (c *change[C, T, O]) edits() (*edits, error) {
	want, err := document(c.want)
	if err != nil {
		return nil, err
	}
	live, err := document(c.live)
	if err != nil {
		return nil, err
	}
	owners, err := readOwnership(c.live.GetManagedFields(), c.plan.fieldManager)
	if err != nil {
		return nil, fmt.Errorf("the %s: %w", Name(c.want), err)
	}
	return &edits{want: want.Object, live: live.Object, ownership: owners}, nil
}

// takeOver moves fields from other field managers to ours. This alone changes nothing else in
// the object; the next apply removes those that are not wanted, together with what else it
// changes.
func (c *change[C, T, O]) takeOver(ctx context.Context, e *edits, paths *fieldpath.Set) error {
	managers := e.take(paths)
	if len(managers) == 0 {
		return nil
	}
	entries, err := e.encode()
	if err != nil {
		return err
	}
	patch, err := json.Marshal([]map[string]any{
		{"op": "replace", "path": "/metadata/managedFields", "value": entries},
		// Replaced by itself and not tested: an old one is then a conflict.
		{"op": "replace", "path": "/metadata/resourceVersion", "value": c.live.GetResourceVersion()},
	})
	if err != nil {
		return fmt.Errorf("encoding the fields of the %s: %w", Name(c.want), err)
	}
	if err := c.plan.clients.Writer.Patch(ctx, c.live, client.RawPatch(types.JSONPatchType, patch), client.FieldOwner(c.plan.fieldManager)); err != nil {
		return fmt.Errorf("taking over fields of the %s: %w", Name(c.want), err)
	}
	log.FromContext(ctx).Info("Taking over fields that other field managers changed", "object", Name(c.want), "managers", managers, "fields", paths.String())
	return nil
}

// document is an object, or an apply configuration, as JSON.
func document(object any) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, fmt.Errorf("encoding a %T: %w", object, err)
	}
	return &unstructured.Unstructured{Object: fields}, nil
}
