package instance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// callTimeout is how long a call to Headscale may take. It is shorter than the client's own,
// because a reconcile waits for it.
const callTimeout = 5 * time.Second

// policyTimeout is how long it may take to set a policy, for which Headscale computes the rules of all nodes
// before it answers. It is as long as an API Key Manager waits: where the operator gave up before, Headscale
// would go on, and be sent the same policy again and again.
const policyTimeout = 30 * time.Second

// API are the calls of Headscale's admin API that the operator makes. Errors are those of the
// package headscale.
type API interface {
	ListUsers(ctx context.Context) ([]headscale.User, error)
	CreateUser(ctx context.Context, user headscale.NewUser) (headscale.User, error)
	RenameUser(ctx context.Context, id uint64, name string) (headscale.User, error)
	DeleteUser(ctx context.Context, id uint64) error
	ListNodes(ctx context.Context) ([]headscale.Node, error)
	ListPreAuthKeys(ctx context.Context, users []uint64) ([]headscale.PreAuthKey, error)
	CreatePreAuthKey(ctx context.Context, key headscale.NewPreAuthKey) (headscale.PreAuthKey, error)
	ExpirePreAuthKey(ctx context.Context, key headscale.PreAuthKey) error
	DeletePreAuthKey(ctx context.Context, id uint64) error
	GetPolicy(ctx context.Context) (headscale.Policy, error)
	SetPolicy(ctx context.Context, text string) (headscale.Policy, error)
	Close() error
}

// Connect returns the admin API behind the endpoint of an API Key Manager. It connects with the
// first call, and keeps the connection.
func Connect(address string, pin headscale.Pin, key headscale.Key) API {
	dial := headscale.AdminEndpoint(address, pin)
	return adminAPI{
		API:      headscale.NewClient(dial, headscale.WithBearerToken(key), headscale.WithKeepAlive(), headscale.WithCallTimeout(callTimeout)),
		policies: headscale.NewClient(dial, headscale.WithBearerToken(key), headscale.WithCallTimeout(policyTimeout)),
	}
}

// adminAPI is an API that sets policies with a client of their own, which waits longer.
type adminAPI struct {
	API
	policies *headscale.Client
}

// SetPolicy sets the policy.
func (c adminAPI) SetPolicy(ctx context.Context, text string) (headscale.Policy, error) {
	return c.policies.SetPolicy(ctx, text)
}

// Close ends the calls of both.
func (c adminAPI) Close() error { return errors.Join(c.API.Close(), c.policies.Close()) }

// Kind is a kind of objects that refer to Headscales.
type Kind struct {
	// Objects lists the objects that refer to a Headscale. They are not to be changed.
	Objects func(ctx context.Context, of client.ObjectKey) ([]client.Object, error)
	// Differs reports whether an object is to be reconciled because one snapshot follows another.
	Differs func(object client.Object, before, after *Snapshot) bool
	// Concerns reports whether an object is to be reconciled because an operator's write has changed
	// something, or because it or a later read of a part of the snapshot has found it changed; nil: none is.
	Concerns func(object client.Object, changes Changes) bool
	// NeedsNodes reports whether an object is about the nodes of a Headscale, too.
	NeedsNodes func(object client.Object) bool
	// NeedsPolicy is whether the objects are about the policy of a Headscale, too.
	NeedsPolicy bool
	// NeedsKeys is whether the objects are about pre-auth keys. With them the policy is read, too,
	// where it can be.
	NeedsKeys bool
	// Workers is how many objects are reconciled at once.
	Workers int

	events chan event.GenericEvent

	lock   sync.Mutex
	queues map[client.ObjectKey]*waitQueue
}

// Options are what Instances work with.
type Options struct {
	// Client reads from the cache, and Live from the API server.
	Client, Live client.Reader
	// AllNamespaces is whether the cache has all namespaces. Else the API server is asked for one.
	AllNamespaces bool
	// Now is the clock.
	Now func() time.Time
	// Connect makes the connection to an endpoint; nil: Connect of this package.
	Connect func(address string, pin headscale.Pin, key headscale.Key) API
	// MaxAge is how old a snapshot may be, and so how long a change by somebody else may go
	// unnoticed; zero: DefaultMaxAge.
	MaxAge time.Duration
}

// DefaultMaxAge is how old a snapshot may be.
const DefaultMaxAge = 30 * time.Second

// Instances are the Headscales that objects refer to.
type Instances struct {
	Options

	// ctx ends what goes on between reconciles.
	ctx   context.Context
	kinds []*Kind

	lock  sync.Mutex
	known map[client.ObjectKey]*shared
}

// New returns the Headscales that objects refer to, which are looked at until the context ends.
func New(ctx context.Context, options *Options) *Instances {
	in := &Instances{Options: *options, ctx: ctx, known: map[client.ObjectKey]*shared{}}
	if in.Connect == nil {
		in.Connect = Connect
	}
	if in.MaxAge == 0 {
		in.MaxAge = DefaultMaxAge
	}
	return in
}

// CachedObjects says what the cache holds for Instances: the labels of namespaces.
func CachedObjects() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{&corev1.Namespace{}: {Transform: stripNamespace}}
}

// stripNamespace leaves of a namespace what access depends on.
func stripNamespace(object any) (any, error) {
	if namespace, ok := object.(metav1.Object); ok {
		namespace.SetManagedFields(nil)
		namespace.SetAnnotations(nil)
	}
	return object, nil
}

// AddKind adds a kind of objects before the first reconcile, and returns where those are named that
// are to be reconciled.
func (in *Instances) AddKind(kind *Kind) <-chan event.GenericEvent {
	kind.events = make(chan event.GenericEvent)
	in.kinds = append(in.kinds, kind)
	return kind.events
}

// Enqueue has objects of the kind reconciled.
func (k *Kind) Enqueue(ctx context.Context, objects ...client.Object) {
	for _, object := range objects {
		select {
		case k.events <- event.GenericEvent{Object: object}:
		case <-ctx.Done():
			return
		}
	}
}

// Instance is a Headscale as the reconcile of an object that refers to it has found it.
type Instance struct {
	// Headscale is nil where there is none, or none that this operator watches. It is not to be changed.
	Headscale *v1beta1.Headscale
	// Namespace is that of the object.
	Namespace Namespace

	name client.ObjectKey
	in   *Instances
	// patient is whether the reconcile waits for its turn even if that takes long.
	patient bool
}

// Find finds the Headscale that an object of a namespace refers to. Errors are those of reading.
func (in *Instances) Find(ctx context.Context, namespace string, name client.ObjectKey) (*Instance, error) {
	found := &Instance{Namespace: Namespace{Name: namespace}, name: name, in: in}
	hs := &v1beta1.Headscale{}
	err := in.Client.Get(ctx, name, hs)
	if client.IgnoreNotFound(err) != nil && !isUnwatched(err) {
		return nil, fmt.Errorf("reading Headscale %s: %w", name, err)
	}
	if err == nil {
		found.Headscale = hs
	}
	found.Namespace, err = in.readNamespace(ctx, in.namespaceReader(), namespace)
	return found, err
}

// isUnwatched reports whether an error of the cache says that it does not have the namespace. The
// error has no type of its own.
func isUnwatched(err error) bool {
	return strings.HasSuffix(err.Error(), "because of unknown namespace for the cache")
}

// namespaceReader reads namespaces.
func (in *Instances) namespaceReader() client.Reader {
	if in.AllNamespaces {
		return in.Client
	}
	return in.Live
}

// readNamespace reads what access depends on. A namespace that cannot be read has no labels.
func (in *Instances) readNamespace(ctx context.Context, reader client.Reader, name string) (Namespace, error) {
	read := Namespace{Name: name}
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	err := reader.Get(ctx, client.ObjectKey{Name: name}, object)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		return read, nil
	case err != nil:
		return read, fmt.Errorf("reading namespace %s: %w", name, err)
	}
	read.Labels, read.Terminating = object.Labels, !object.DeletionTimestamp.IsZero()
	return read, nil
}

// CheckUsers returns why the namespace of the object may not have users of the Headscale, or why
// that one is out of reach; nil where it is not.
func (i *Instance) CheckUsers() error { return i.check(true, nil) }

// CheckKeys returns why the namespace of the object may not have pre-auth keys of the Headscale with
// these tags, of a user or of none, or why that one is out of reach; nil where it is not.
func (i *Instance) CheckKeys(ofUser bool, tags []string) error { return i.check(ofUser, tags) }

// check returns what CheckUsers and CheckKeys do. The namespace of the Headscale may have everything.
func (i *Instance) check(users bool, tags []string) error {
	if i.Headscale != nil && i.Headscale.Namespace != i.Namespace.Name {
		if users && !AllowsUsers(i.Headscale, i.Namespace) {
			return notAllowed(i.Headscale, i.Namespace, "users: true")
		}
		for _, tag := range tags {
			if !AllowsTag(i.Headscale, i.Namespace, tag) {
				return notAllowed(i.Headscale, i.Namespace, fmt.Sprintf("tags: [%q]", tag))
			}
		}
	}
	return problemOf(i.name, i.Headscale)
}

// ConfirmUsers is CheckUsers by what the API server has at this moment, for before a user is created: the cache may
// have access that was taken away, or that another namespace of this name had.
func (i *Instance) ConfirmUsers(ctx context.Context) error { return i.confirm(ctx, true, nil) }

// ConfirmKeys is such a CheckKeys, for before a key is created.
func (i *Instance) ConfirmKeys(ctx context.Context, ofUser bool, tags []string) error {
	return i.confirm(ctx, ofUser, tags)
}

// confirm does what ConfirmUsers and ConfirmKeys do. The namespace of the Headscale always has access.
func (i *Instance) confirm(ctx context.Context, users bool, tags []string) error {
	if i.name.Namespace == i.Namespace.Name {
		return nil
	}
	now, hs := &Instance{name: i.name}, &v1beta1.Headscale{}
	err := i.in.Live.Get(ctx, i.name, hs)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading Headscale %s to confirm access: %w", i.name, err)
	}
	if err == nil {
		now.Headscale = hs
	}
	if now.Namespace, err = i.in.readNamespace(ctx, i.in.Live, i.Namespace.Name); err != nil {
		return err
	}
	return now.check(users, tags)
}

// AllowsUsersOf reports whether another namespace may have users of the Headscale, which there is.
func (i *Instance) AllowsUsersOf(ctx context.Context, namespace string) (bool, error) {
	if namespace == i.Headscale.Namespace {
		return true, nil
	}
	read, err := i.in.readNamespace(ctx, i.in.namespaceReader(), namespace)
	return err == nil && AllowsUsers(i.Headscale, read), err
}

// Snapshot returns what the Headscale has: read at most MaxAge ago, or now. It fails with a
// Problem where it cannot be read, until something changes or the next poll succeeds, and with an
// error that IsBusy knows.
func (i *Instance) Snapshot(ctx context.Context) (*Snapshot, error) {
	s := i.shared()
	return s.snapshotOf(ctx, i.in, i.Headscale, i.turnOf(s))
}

// turnOf is how the reconcile waits for its turn.
func (i *Instance) turnOf(s *shared) func(context.Context, func() time.Time) error {
	if i.patient {
		return s.calls.wait
	}
	return s.calls.tryWait
}

// Nodes returns the snapshot with nodes.
func (i *Instance) Nodes(ctx context.Context) (*Snapshot, error) {
	return i.complete(ctx, (*Snapshot).hasNodes, (*Snapshot).readNodes)
}

// Policy returns the snapshot with the policy.
func (i *Instance) Policy(ctx context.Context) (*Snapshot, error) {
	i.shared().want(need{policy: true})
	return i.complete(ctx, (*Snapshot).hasPolicy, (*Snapshot).readPolicy)
}

// CheckHeadscale returns why the Headscale is out of reach by its own resource; nil: it is not.
func (i *Instance) CheckHeadscale() error { return problemOf(i.name, i.Headscale) }

// Keys returns the snapshot with pre-auth keys.
func (i *Instance) Keys(ctx context.Context) (*Snapshot, error) {
	i.shared().want(need{keys: true})
	return i.complete(ctx, (*Snapshot).hasKeys, (*Snapshot).readKeys)
}

// complete returns the snapshot with a part that is read where it is missing. A part that another reconcile has read
// meanwhile is not replaced: whoever has used it is told of what has changed only if the next snapshot differs from it.
func (i *Instance) complete(ctx context.Context, has func(*Snapshot) bool, read func(*Snapshot, context.Context, API) error) (*Snapshot, error) {
	snapshot, err := i.Snapshot(ctx)
	if err != nil || has(snapshot) {
		return snapshot, err
	}
	err = i.TryWrite(ctx, func(ctx context.Context, api API, current *Snapshot) error {
		snapshot = current
		if has(current) {
			return nil // another reconcile has read it meanwhile
		}
		return read(current, ctx, api)
	})
	return snapshot, err
}

// Write calls a function that changes the Headscale and notes in the snapshot what it has changed.
// Nobody else reads or writes the same Headscale meanwhile, so that the snapshot is that of the
// moment. The function may be called again where nothing was sent.
func (i *Instance) Write(ctx context.Context, change func(ctx context.Context, api API, snapshot *Snapshot) error) error {
	s := i.shared()
	return s.write(ctx, i.in, i.Headscale, s.calls.wait, change)
}

// TryWrite is Write that fails with an error that IsBusy knows where a slow Headscale would have to
// be waited for.
func (i *Instance) TryWrite(ctx context.Context, change func(ctx context.Context, api API, snapshot *Snapshot) error) error {
	s := i.shared()
	return s.write(ctx, i.in, i.Headscale, i.turnOf(s), change)
}

// shared is what all objects of the Headscale have in common.
func (i *Instance) shared() *shared {
	i.in.lock.Lock()
	defer i.in.lock.Unlock()
	s := i.in.known[i.name]
	if s == nil {
		s = &shared{name: i.name, calls: newCallLock()}
		i.in.known[i.name] = s
	}
	return s
}

// Reset has a Headscale polled again that could not be called, because something about it has changed.
func (in *Instances) Reset(name client.ObjectKey) {
	in.lock.Lock()
	s := in.known[name]
	in.lock.Unlock()
	if s != nil {
		s.reset()
	}
}

// LastUser returns the user of an id as the last snapshot of a Headscale has it, without asking that.
func (in *Instances) LastUser(of client.ObjectKey, id uint64) (headscale.User, bool) {
	in.lock.Lock()
	s := in.known[of]
	in.lock.Unlock()
	if s == nil {
		return headscale.User{}, false
	}
	return s.user(id)
}

// forget drops what is known of a Headscale that no object refers to or that is not to be called, its key above all.
func (in *Instances) forget(name client.ObjectKey) {
	in.lock.Lock()
	s := in.known[name]
	delete(in.known, name)
	in.lock.Unlock()
	if s != nil {
		s.close(in)
	}
}
