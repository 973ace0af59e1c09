// Package refwatch watches the metadata of Secrets and ConfigMaps that other objects refer
// to by name.
package refwatch

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// maxNamespaces is how many namespaces get a watch of their own. With more, one watch of all
// namespaces costs less, for the operator and for the API server.
const maxNamespaces = 50

// restartPause is the minimum time between two starts of a watch that ended. A watch ends when the
// API server does not have the resource version to continue from any more.
const restartPause = 5 * time.Second

// Reference names an object that another object of its namespace refers to.
type Reference struct {
	// Resource is the plural name of its kind in the core group: secrets or configmaps.
	Resource string
	// Name is its name.
	Name string
}

// watchedObject is a reference with its namespace.
type watchedObject struct {
	namespace string
	Reference
}

// scope is what one watch covers: a resource in a namespace, or, with "", in all.
type scope struct{ namespace, resource string }

// Watches watch the metadata of the objects that objects of one kind refer to. Such objects have
// none of our labels, so there is one watch for all objects of a kind in a namespace with
// references. Nothing is cached, and changes of objects that nobody refers to are dropped. A change
// of any other object triggers a reconcile of its users. A nil Watches watches nothing.
type Watches struct {
	// ctx ends all watches.
	ctx    context.Context
	client metadata.Interface
	// everywhere is whether one watch may cover all namespaces.
	everywhere bool
	// events name the objects to reconcile.
	events chan event.GenericEvent

	lock sync.Mutex
	// references are what each user refers to.
	references map[types.NamespacedName][]Reference
	// users are who refers to each object; the lists are replaced and not changed.
	users map[watchedObject][]types.NamespacedName
	// wide is whether one watch covers all namespaces. Once there are many namespaces, it stays
	// true.
	wide bool
	// running end the watches that run.
	running map[scope]context.CancelFunc
}

// New returns watches that end with the context. everywhere is whether they may be of all
// namespaces at once.
func New(ctx context.Context, cluster *rest.Config, http *http.Client, everywhere bool) (*Watches, error) {
	connection, err := metadata.NewForConfigAndClient(cluster, http)
	if err != nil {
		return nil, fmt.Errorf("making a client for metadata: %w", err)
	}
	return &Watches{
		ctx:        ctx,
		client:     connection,
		everywhere: everywhere,
		events:     make(chan event.GenericEvent),
		references: map[types.NamespacedName][]Reference{},
		running:    map[scope]context.CancelFunc{},
	}, nil
}

// Events are the users whose references changed: each object has a namespace and a name only.
func (w *Watches) Events() <-chan event.GenericEvent { return w.events }

// Len is how many watches there are.
func (w *Watches) Len() int {
	w.lock.Lock()
	defer w.lock.Unlock()
	return len(w.running)
}

// Sync watches what a user refers to now, and stops watching what nobody refers to any more.
func (w *Watches) Sync(user types.NamespacedName, references []Reference) {
	if w == nil {
		return
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	if slices.Equal(w.references[user], references) {
		return
	}
	if len(references) == 0 {
		delete(w.references, user)
	} else {
		w.references[user] = slices.Clone(references)
	}
	w.index()
	w.restart()
}

// index works out who refers to each object.
func (w *Watches) index() {
	w.users = map[watchedObject][]types.NamespacedName{}
	for user, references := range w.references {
		for _, reference := range references {
			object := watchedObject{user.Namespace, reference}
			if !slices.Contains(w.users[object], user) {
				w.users[object] = append(w.users[object], user)
			}
		}
	}
}

// restart starts the watches that are missing and stops those that are not needed.
func (w *Watches) restart() {
	wanted := w.scopes()
	for s := range wanted {
		if w.running[s] == nil {
			ctx, stop := context.WithCancel(w.ctx)
			w.running[s] = stop
			go w.run(ctx, s)
		}
	}
	for s, stop := range w.running {
		if !wanted[s] {
			stop()
			delete(w.running, s)
		}
	}
}

// scopes are the watches that are needed: one for each namespace with references and
// resource, or, once these were many, one for all namespaces.
func (w *Watches) scopes() map[scope]bool {
	namespaces, scopes := map[string]bool{}, map[scope]bool{}
	for object := range w.users {
		namespaces[object.namespace] = true
	}
	w.wide = w.wide || w.everywhere && len(namespaces) > maxNamespaces
	for object := range w.users {
		scopes[w.scopeOf(object)] = true
	}
	return scopes
}

// scopeOf is the watch that an object is in.
func (w *Watches) scopeOf(object watchedObject) scope {
	if w.wide {
		object.namespace = metav1.NamespaceAll
	}
	return scope{object.namespace, object.Resource}
}

// run watches until the context ends.
func (w *Watches) run(ctx context.Context, s scope) {
	wait.JitterUntilWithContext(ctx, func(ctx context.Context) { w.watch(ctx, s) }, restartPause, 1, true)
}

// watch starts at the current resource version and runs until the watch ends. There may have been
// changes since the users were reconciled, so they are reconciled again.
func (w *Watches) watch(ctx context.Context, s scope) {
	objects := w.client.Resource(corev1.SchemeGroupVersion.WithResource(s.resource)).Namespace(s.namespace)
	// Only the resource version of the list is needed, not its items.
	now, err := objects.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return
	}
	changes, err := watchtools.NewRetryWatcherWithContext(ctx, now.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return objects.Watch(ctx, options)
		},
	})
	if err != nil {
		return
	}
	defer changes.Stop()
	w.notify(ctx, w.usersIn(s))
	for change := range changes.ResultChan() {
		if object, ok := change.Object.(metav1.Object); ok {
			w.notify(ctx, w.usersOf(watchedObject{object.GetNamespace(), Reference{s.resource, object.GetName()}}))
		}
	}
}

// usersOf are those who refer to an object.
func (w *Watches) usersOf(object watchedObject) []types.NamespacedName {
	w.lock.Lock()
	defer w.lock.Unlock()
	return w.users[object]
}

// usersIn are those who refer to an object that a watch is for.
func (w *Watches) usersIn(s scope) []types.NamespacedName {
	w.lock.Lock()
	defer w.lock.Unlock()
	users := map[types.NamespacedName]struct{}{}
	for object, refer := range w.users {
		if w.scopeOf(object) != s {
			continue
		}
		for _, user := range refer {
			users[user] = struct{}{}
		}
	}
	return slices.Collect(maps.Keys(users))
}

// notify triggers a reconcile of users.
func (w *Watches) notify(ctx context.Context, users []types.NamespacedName) {
	for _, user := range users {
		object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: user.Namespace, Name: user.Name}}
		select {
		case w.events <- event.GenericEvent{Object: object}:
		case <-ctx.Done():
			return
		}
	}
}
