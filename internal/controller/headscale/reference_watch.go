package headscale

import (
	"context"
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

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// watchedObject names an object that is watched.
type watchedObject struct {
	namespace, kind, name string
}

// watchedReference is the watch of one object.
type watchedReference struct {
	// stop ends the watch.
	stop context.CancelFunc
	// users are the Headscales that refer to the object.
	users map[types.NamespacedName]struct{}
}

// referenceWatches watch the metadata of the objects that Headscales refer to, each by
// its name: such objects have none of our labels, and a watch of all Secrets would
// bring the operator what is none of its business, and cost memory with every one of
// them. Nothing of what is seen is kept; a change makes the Headscales that refer to the
// object be looked at.
type referenceWatches struct {
	// ctx ends all watches.
	ctx    context.Context
	client metadata.Interface
	// events are Headscales to look at.
	events chan event.GenericEvent

	lock    sync.Mutex
	objects map[watchedObject]*watchedReference
}

// newReferenceWatches makes watches that end with the context.
func newReferenceWatches(ctx context.Context, cluster *rest.Config, http *http.Client) (*referenceWatches, error) {
	connection, err := metadata.NewForConfigAndClient(cluster, http)
	if err != nil {
		return nil, err
	}
	return &referenceWatches{
		ctx:     ctx,
		client:  connection,
		events:  make(chan event.GenericEvent),
		objects: map[watchedObject]*watchedReference{},
	}, nil
}

// keep watches what a Headscale refers to now, and nothing else for its sake.
func (w *referenceWatches) keep(headscale types.NamespacedName, references []resources.Reference) {
	w.lock.Lock()
	defer w.lock.Unlock()
	wanted := map[watchedObject]struct{}{}
	for _, reference := range references {
		object := watchedObject{headscale.Namespace, reference.Kind, reference.Name}
		wanted[object] = struct{}{}
		if w.objects[object] == nil {
			w.objects[object] = w.start(object)
		}
		w.objects[object].users[headscale] = struct{}{}
	}
	maps.DeleteFunc(w.objects, func(object watchedObject, watched *watchedReference) bool {
		if _, still := wanted[object]; !still {
			delete(watched.users, headscale)
		}
		if len(watched.users) > 0 {
			return false
		}
		watched.stop()
		return true
	})
}

// start watches one object until it is stopped.
func (w *referenceWatches) start(object watchedObject) *watchedReference {
	ctx, stop := context.WithCancel(w.ctx)
	reflector := cache.NewReflectorWithOptions(w.listWatch(object), &metav1.PartialObjectMetadata{},
		changes{func() { w.tell(ctx, object) }}, cache.ReflectorOptions{Name: "references"})
	go reflector.RunWithContext(ctx)
	return &watchedReference{stop: stop, users: map[types.NamespacedName]struct{}{}}
}

// listWatch lists and watches the metadata of one object.
func (w *referenceWatches) listWatch(object watchedObject) *cache.ListWatch {
	resource := "secrets"
	if object.kind == resources.KindConfigMap {
		resource = "configmaps"
	}
	objects := w.client.Resource(corev1.SchemeGroupVersion.WithResource(resource)).Namespace(object.namespace)
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, object.name).String()
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

// tell makes the Headscales that refer to an object be looked at.
func (w *referenceWatches) tell(ctx context.Context, object watchedObject) {
	w.lock.Lock()
	var users []types.NamespacedName
	if watched := w.objects[object]; watched != nil {
		for user := range watched.users {
			users = append(users, user)
		}
	}
	w.lock.Unlock()
	for _, user := range users {
		headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: user.Namespace, Name: user.Name}}
		select {
		case w.events <- event.GenericEvent{Object: headscale}:
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
