package apply

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Configuration is an apply configuration, such as *corev1.ConfigMapApplyConfiguration.
type Configuration interface {
	comparable
	runtime.ApplyConfiguration
	GetKind() *string
	GetName() *string
	GetNamespace() *string
}

// Object is a pointer to an API type, such as *corev1.ConfigMap.
type Object[T any] interface {
	*T
	client.Object
}

// Spec is how the objects of one kind are compared with their desired state, and applied.
type Spec[C, O any] struct {
	// Extract returns the fields of a live object that a field manager applied.
	Extract func(live O, fieldManager string) (C, error)
	// KeepImmutable, if it is set, returns the desired state with the immutable values of the
	// existing object. owned are the fields of live that Extract returned.
	KeepImmutable func(want, owned C) C
	// DryRun is whether the change of an existing object is sent as a dry run before any object is
	// written.
	DryRun bool
	// Gate, if it is set, is called before an object is created, or changed after a dry run. live
	// is the object, nil if it does not exist; planned is the object as it would be, nil if that is
	// not known. On an error, the object is not written.
	Gate func(ctx context.Context, live, planned O) error
	// OnObserve, where it is set, is called with the newest known state of the object, as the cache
	// has it if nothing has to be written.
	OnObserve func(O)
	// OnCreate, where it is set, is called with an object that did not exist before.
	OnCreate func(O)
}

// Clients are the clients of the API server that a plan uses.
type Clients struct {
	// Cache reads from the cache, without a request.
	Cache client.Reader
	// Live reads from the API server.
	Live client.Reader
	// Writer writes to it.
	Writer client.Writer
	// Memory outlives the plan; nil: nothing is remembered.
	Memory *Memory
}

// Add compares one object and plans the changes that it needs; a nil want needs none. The cache is
// enough to find that the object is up to date. Only a live read can find that it is not: an object
// that is missing from the cache may exist without our labels, and a cached object may be stale.
// The object is not written if one of those that it waits for, by kind and name, cannot be written.
func Add[C Configuration, T any, O Object[T]](ctx context.Context, p *Plan, want C, spec Spec[C, O], waitsFor ...string) {
	var unwanted C
	if want == unwanted {
		return
	}
	wanted, err := digestOf(want)
	if err != nil {
		p.fail(Name(want), err)
		return
	}
	seen, err := compare[C, T](ctx, p, p.clients.Cache, want, wanted, spec)
	if err == nil && !seen.upToDate {
		seen, err = compare[C, T](ctx, p, p.clients.Live, want, wanted, spec)
	}
	switch name := Name(want); {
	case err != nil:
		p.fail(name, err)
	case seen.live != nil && !metav1.IsControlledBy(seen.live, p.owner):
		p.foreign = append(p.foreign, name)
	case !seen.upToDate:
		c := &change[C, T, O]{plan: p, spec: spec, want: seen.want, wanted: wanted, live: seen.live}
		p.steps = append(p.steps, step{object: name, waitsFor: waitsFor, check: c.check, write: c.write})
	}
}

// observed is what is known of an object after a comparison.
type observed[C, O any] struct {
	// live is the object, nil where there is none.
	live O
	// want is its desired state.
	want C
	// upToDate is whether nothing has to be written: the object is the owner's and has every
	// field as wanted, or it is being deleted, so that a watch will report its end.
	upToDate bool
}

// compare reads an object and compares it with what is wanted, of which wanted is the digest. A
// version that is known to be up to date is not compared again.
func compare[C Configuration, T any, O Object[T]](ctx context.Context, p *Plan, reader client.Reader, want C, wanted digest, spec Spec[C, O]) (observed[C, O], error) {
	seen := observed[C, O]{want: want}
	live := O(new(T))
	key := client.ObjectKey{Namespace: *want.GetNamespace(), Name: *want.GetName()}
	err := reader.Get(ctx, key, live)
	switch {
	case apierrors.IsNotFound(err):
		return seen, nil
	case err != nil:
		return seen, fmt.Errorf("reading the %s: %w", Name(want), err)
	}
	seen.live = live
	if !metav1.IsControlledBy(live, p.owner) {
		return seen, nil
	}
	p.exists = true
	owner := client.ObjectKeyFromObject(p.owner)
	before, now := p.clients.Memory.of(owner, Name(want)), known{wanted: wanted, resourceVersion: live.GetResourceVersion()}
	if before.wanted == wanted && before.resourceVersion == now.resourceVersion {
		seen.upToDate = true
		notify(spec.OnObserve, live)
		return seen, nil
	}
	deleting := !live.GetDeletionTimestamp().IsZero()
	owned, err := spec.Extract(live, p.fieldManager)
	if err != nil {
		// An update stored two entries with one key, which an apply makes one of.
		seen.upToDate = deleting
		return seen, nil //nolint:nilerr // if the apply does not help, it is reported afterwards
	}
	if spec.KeepImmutable != nil {
		seen.want = spec.KeepImmutable(want, owned)
	}
	current := equality.Semantic.DeepEqual(owned, seen.want)
	if !current {
		if now.owned, err = digestOf(owned); err != nil {
			return seen, err
		}
		current = before.wanted == wanted && before.owned == now.owned
	}
	if current {
		p.clients.Memory.note(owner, Name(want), now)
	}
	if seen.upToDate = current || deleting; seen.upToDate {
		notify(spec.OnObserve, live)
	}
	return seen, nil
}

// notify calls a function that need not be set.
func notify[O any](callback func(O), live O) {
	if callback != nil {
		callback(live)
	}
}

// named is the part of an apply configuration that identifies its object.
type named interface {
	GetKind() *string
	GetName() *string
}

// Name is the kind and the name of an object.
func Name(object named) string {
	return *object.GetKind() + " " + *object.GetName()
}

// Delete deletes an object of an owner, in its namespace, if a reader finds it. An object that
// belongs to someone else is not deleted.
func Delete[T any, O Object[T]](ctx context.Context, reader client.Reader, writer client.Writer, owner client.Object, name string, options ...client.DeleteOption) error {
	live := O(new(T))
	err := reader.Get(ctx, client.ObjectKey{Namespace: owner.GetNamespace(), Name: name}, live)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s %T: %w", name, live, err)
	}
	if !metav1.IsControlledBy(live, owner) || !live.GetDeletionTimestamp().IsZero() {
		return nil
	}
	uid := live.GetUID()
	err = writer.Delete(ctx, live, append(options, client.Preconditions{UID: &uid})...)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting %s %T: %w", name, live, err)
	}
	return nil
}
