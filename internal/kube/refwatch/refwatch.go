// Package refwatch watches the metadata of Secrets and ConfigMaps that other objects refer
// to by name.
package refwatch

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

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

// watchedReference is the watch of one object.
type watchedReference struct {
	// stop ends the watch.
	stop context.CancelFunc
	// users are the objects that refer to it.
	users map[types.NamespacedName]struct{}
}

// Watches watch the metadata of the objects that objects of one kind refer to, each by its
// name: such objects have none of our labels, and a watch of all Secrets would read what is
// not the operator's business, and cost memory for each of them. Nothing of what is seen is
// kept; a change triggers a reconcile of the users of the object. A nil Watches watches
// nothing.
type Watches struct {
	// ctx ends all watches.
	ctx    context.Context
	client metadata.Interface
	// events name the objects to reconcile.
	events chan event.GenericEvent

	lock    sync.Mutex
	objects map[watchedObject]*watchedReference
}

// New returns watches that end with the context.
func New(ctx context.Context, cluster *rest.Config, http *http.Client) (*Watches, error) {
	connection, err := metadata.NewForConfigAndClient(cluster, http)
	if err != nil {
		return nil, fmt.Errorf("making a client for metadata: %w", err)
	}
	return &Watches{
		ctx:     ctx,
		client:  connection,
		events:  make(chan event.GenericEvent),
		objects: map[watchedObject]*watchedReference{},
	}, nil
}

// Events are the users whose references changed: each object has a namespace and a name only.
func (w *Watches) Events() <-chan event.GenericEvent { return w.events }

// Len is how many objects are watched.
func (w *Watches) Len() int {
	w.lock.Lock()
	defer w.lock.Unlock()
	return len(w.objects)
}

// Sync watches what a user refers to now, and stops watching what it does not refer to any
// more.
func (w *Watches) Sync(user types.NamespacedName, references []Reference) {
	if w == nil {
		return
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	wanted := map[watchedObject]struct{}{}
	for _, reference := range references {
		object := watchedObject{user.Namespace, reference}
		wanted[object] = struct{}{}
		if w.objects[object] == nil {
			w.objects[object] = w.start(object)
		}
		w.objects[object].users[user] = struct{}{}
	}
	maps.DeleteFunc(w.objects, func(object watchedObject, watched *watchedReference) bool {
		if _, still := wanted[object]; !still {
			delete(watched.users, user)
		}
		if len(watched.users) > 0 {
			return false
		}
		watched.stop()
		return true
	})
}

// start watches one object until it is stopped.
func (w *Watches) start(object watchedObject) *watchedReference {
	ctx, stop := context.WithCancel(w.ctx)
	reflector := cache.NewReflectorWithOptions(w.listWatch(object), &metav1.PartialObjectMetadata{},
		changes{func() { w.notify(ctx, object) }}, cache.ReflectorOptions{Name: "references"})
	go reflector.RunWithContext(ctx)
	return &watchedReference{stop: stop, users: map[types.NamespacedName]struct{}{}}
}

// listWatch lists and watches the metadata of one object.
func (w *Watches) listWatch(object watchedObject) *cache.ListWatch {
	objects := w.client.Resource(corev1.SchemeGroupVersion.WithResource(object.Resource)).Namespace(object.namespace)
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, object.Name).String()
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			return objects.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			return objects.Watch(ctx, options)
		},
	}
}

// notify triggers a reconcile of the users of an object.
func (w *Watches) notify(ctx context.Context, object watchedObject) {
	w.lock.Lock()
	var users []types.NamespacedName
	if watched := w.objects[object]; watched != nil {
		for user := range watched.users {
			users = append(users, user)
		}
	}
	w.lock.Unlock()
	for _, user := range users {
		object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: user.Namespace, Name: user.Name}}
		select {
		case w.events <- event.GenericEvent{Object: object}:
		case <-ctx.Done():
			return
		}
	}
}

// changes is a store that holds nothing and reports every change.
type changes struct {
	report func()
}

// Add reports a new object.
func (c changes) Add(any) error { c.report(); return nil }

// Update reports a changed object.
func (c changes) Update(any) error { c.report(); return nil }

// Delete reports a deleted object.
func (c changes) Delete(any) error { c.report(); return nil }

// Replace reports what is there when a watch starts, because it may have changed since
// it was read.
func (c changes) Replace([]any, string) error { c.report(); return nil }

// Resync has nothing to do.
func (c changes) Resync() error { return nil }
