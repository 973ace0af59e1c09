package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Configuration is an apply configuration, such as *corev1.ConfigMapApplyConfiguration.
type Configuration[C any] interface {
	comparable
	runtime.ApplyConfiguration
	GetKind() *string
	GetName() *string
	GetNamespace() *string
	WithUID(types.UID) C
	WithResourceVersion(string) C
}

// Object is a pointer to an API type, such as *corev1.ConfigMap.
type Object[T any] interface {
	*T
	client.Object
}

// Spec is how the objects of one kind are compared with what is wanted, and applied.
type Spec[C, O any] struct {
	// Extract returns the fields of a live object that a field manager applied.
	Extract func(live O, fieldManager string) (C, error)
	// KeepImmutable, where it is set, returns what is wanted with the values that cannot be
	// changed in the object that exists. owned are the fields of live that Extract returned.
	KeepImmutable func(want, owned C) C
	// DryRun is whether the API server is asked whether it accepts the change of an object
	// that exists, before any object is written.
	DryRun bool
	// OnObserve, where it is set, is called with the newest known state of the object.
	OnObserve func(O)
	// OnCreate, where it is set, is called with an object that did not exist before.
	OnCreate func(O)
}

// Clients are the ways to the API server that a plan takes.
type Clients struct {
	// Cache reads from the cache: a read that costs no request.
	Cache client.Reader
	// Live reads from the API server.
	Live client.Reader
	// Writer writes to it.
	Writer client.Writer
}

// Plan is what is to be written for one owner, worked out before anything is.
type Plan struct {
	clients Clients
	owner   client.Object
	// fieldManager is the field manager under which objects are applied.
	fieldManager string
	// foreign names the objects that belong to someone else.
	foreign []string
	// dryRuns ask whether writes would be refused.
	dryRuns []func(context.Context) error
	// writes apply an object each.
	writes []func(context.Context) error
}

// NewPlan returns an empty plan for the objects of an owner, which is their controller.
func NewPlan(clients Clients, owner client.Object, fieldManager string) *Plan {
	return &Plan{clients: clients, owner: owner, fieldManager: fieldManager}
}

// Empty tells whether nothing has to be written.
func (p *Plan) Empty() bool { return len(p.writes) == 0 }

// Execute writes what is planned. It writes nothing and returns a *ForeignError where a name
// is taken by someone else, and an *OwnerGoneError where the owner is being deleted.
func (p *Plan) Execute(ctx context.Context) error {
	if len(p.foreign) > 0 {
		return &ForeignError{Owner: p.owner, Objects: p.foreign}
	}
	if err := p.checkOwner(ctx); err != nil {
		return err
	}
	for _, do := range slices.Concat(p.dryRuns, p.writes) {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkOwner asks whether the owner still exists before anything is written: its objects
// would otherwise be created again while they are being deleted with it.
func (p *Plan) checkOwner(ctx context.Context) error {
	if p.Empty() {
		return nil
	}
	live, ok := reflect.New(reflect.TypeOf(p.owner).Elem()).Interface().(client.Object)
	if !ok {
		return fmt.Errorf("a %T is no object of an API", p.owner)
	}
	err := p.clients.Live.Get(ctx, client.ObjectKeyFromObject(p.owner), live)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("checking that the owner still exists: %w", err)
	case err != nil || live.GetUID() != p.owner.GetUID() || !live.GetDeletionTimestamp().IsZero():
		return &OwnerGoneError{Owner: p.owner}
	default:
		return nil
	}
}

// Add compares one object and plans what it needs; a nil want needs nothing. The cache may
// say that the object is up to date. Only the API server may say that it is not: what the
// cache does not hold may exist without our labels, and what it holds may be old.
func Add[C Configuration[C], T any, O Object[T]](ctx context.Context, p *Plan, want C, spec Spec[C, O]) error {
	var unwanted C
	if want == unwanted {
		return nil
	}
	seen, err := compare[C, T](ctx, p, p.clients.Cache, want, spec)
	if err != nil || seen.upToDate {
		return err
	}
	seen, err = compare[C, T](ctx, p, p.clients.Live, want, spec)
	switch {
	case err != nil || seen.upToDate:
		return err
	case seen.live != nil && !metav1.IsControlledBy(seen.live, p.owner):
		p.foreign = append(p.foreign, describe(want))
		return nil
	}
	if spec.DryRun && seen.live != nil {
		p.dryRuns = append(p.dryRuns, func(ctx context.Context) error {
			return dryRun(ctx, p, seen.want, seen.live)
		})
	}
	p.writes = append(p.writes, func(ctx context.Context) error {
		return write[C, T](ctx, p, seen.want, seen.live, spec)
	})
	return nil
}

// observed is what is known of an object after a comparison.
type observed[C, O any] struct {
	// live is the object, nil where there is none.
	live O
	// want is its desired state.
	want C
	// upToDate tells that nothing has to be written: the object is the owner's and has every
	// field as wanted, or it is being deleted, so that a watch will tell of its end.
	upToDate bool
}

// compare reads an object and compares it with what is wanted.
func compare[C Configuration[C], T any, O Object[T]](ctx context.Context, p *Plan, reader client.Reader, want C, spec Spec[C, O]) (observed[C, O], error) {
	seen := observed[C, O]{want: want}
	live := O(new(T))
	key := client.ObjectKey{Namespace: *want.GetNamespace(), Name: *want.GetName()}
	err := reader.Get(ctx, key, live)
	switch {
	case apierrors.IsNotFound(err):
		return seen, nil
	case err != nil:
		return seen, fmt.Errorf("reading the %s: %w", describe(want), err)
	}
	seen.live = live
	if !metav1.IsControlledBy(live, p.owner) {
		return seen, nil
	}
	owned, err := spec.Extract(live, p.fieldManager)
	if err != nil {
		return seen, fmt.Errorf("reading the applied fields of the %s: %w", describe(want), err)
	}
	if spec.KeepImmutable != nil {
		seen.want = spec.KeepImmutable(want, owned)
	}
	seen.upToDate = !live.GetDeletionTimestamp().IsZero() || equality.Semantic.DeepEqual(owned, seen.want)
	if seen.upToDate {
		notify(spec.OnObserve, live)
	}
	return seen, nil
}

// anyVersion is a resource version that no object has: those of stored objects are the
// versions of etcd, which begin with 2. Who applies with it creates, or fails.
const anyVersion = "1"

// write applies an object. One that exists must still be the one that was compared; one
// that does not exist must not have been created in the meantime.
func write[C Configuration[C], T any, O Object[T]](ctx context.Context, p *Plan, want C, live O, spec Spec[C, O]) error {
	options := []client.ApplyOption{client.FieldOwner(p.fieldManager)}
	if live != nil {
		want = want.WithUID(live.GetUID())
		options = append(options, client.ForceOwnership)
	} else {
		want = want.WithResourceVersion(anyVersion)
	}
	if err := p.clients.Writer.Apply(ctx, want, options...); err != nil {
		return fmt.Errorf("applying the %s: %w", describe(want), err)
	}
	// The reply has been read into what was sent.
	reply, err := json.Marshal(want)
	if err != nil {
		return fmt.Errorf("encoding the %s: %w", describe(want), err)
	}
	written := O(new(T))
	if err := json.Unmarshal(reply, written); err != nil {
		return fmt.Errorf("decoding the %s: %w", describe(want), err)
	}
	notify(spec.OnObserve, written)
	if live == nil {
		notify(spec.OnCreate, written)
	}
	return nil
}

// dryRun asks whether an object that exists can be changed to what is wanted. Only a refusal
// of what is wanted is an answer: with a webhook without dry-run support, for one, the write
// decides.
func dryRun[C Configuration[C], O client.Object](ctx context.Context, p *Plan, want C, live O) error {
	sent := &unstructured.Unstructured{}
	var err error
	if sent.Object, err = runtime.DefaultUnstructuredConverter.ToUnstructured(want); err != nil {
		return fmt.Errorf("encoding the %s: %w", describe(want), err)
	}
	sent.SetUID(live.GetUID())
	err = p.clients.Writer.Apply(ctx, client.ApplyConfigurationFromUnstructured(sent), client.FieldOwner(p.fieldManager), client.ForceOwnership, client.DryRunAll)
	if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		return fmt.Errorf("applying the %s: %w", describe(want), err)
	}
	return nil
}

// notify calls a function that need not be set.
func notify[O any](callback func(O), live O) {
	if callback != nil {
		callback(live)
	}
}

// describe names an object for people.
func describe(object interface {
	GetKind() *string
	GetName() *string
},
) string {
	return *object.GetKind() + " " + *object.GetName()
}

// Delete deletes an object of an owner, in its namespace, that a reader finds. One that
// belongs to someone else is left alone.
func Delete[T any, O Object[T]](ctx context.Context, reader client.Reader, writer client.Writer, owner client.Object, name string) error {
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
	err = writer.Delete(ctx, live, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting %s %T: %w", name, live, err)
	}
	return nil
}
