package plugin

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// eventSource reads the events of a namespace: by events.k8s.io, or where that is
// forbidden by the older API of the same events, which may be allowed.
type eventSource struct {
	cluster   *cluster
	namespace string
	older     bool
}

// events are the events of a namespace.
func (c *cluster) events(namespace string) *eventSource {
	return &eventSource{cluster: c, namespace: namespace}
}

// list reads all events, and the resource version to watch from.
func (s *eventSource) list(ctx context.Context) (events []eventsv1.Event, resourceVersion string, err error) {
	options := metav1.ListOptions{Limit: page}
	for {
		some, place, err := s.listPage(ctx, options)
		switch {
		case apierrors.IsForbidden(err) && !s.older:
			s.older = true
			continue
		case err != nil:
			return nil, "", err
		}
		events = append(events, some...)
		if options.Continue = place.Continue; options.Continue == "" {
			return events, place.ResourceVersion, nil
		}
	}
}

// listPage reads some of the events, and where the next are.
func (s *eventSource) listPage(ctx context.Context, options metav1.ListOptions) ([]eventsv1.Event, metav1.ListMeta, error) {
	if !s.older {
		found, err := s.cluster.recorded.Events(s.namespace).List(ctx, options)
		if err != nil {
			return nil, metav1.ListMeta{}, err
		}
		return found.Items, found.ListMeta, nil
	}
	found, err := s.cluster.core.Events(s.namespace).List(ctx, options)
	if err != nil {
		return nil, metav1.ListMeta{}, err
	}
	events := make([]eventsv1.Event, len(found.Items))
	for i := range found.Items {
		events[i] = fromOlder(&found.Items[i])
	}
	return events, found.ListMeta, nil
}

// watch follows the events, across interruptions, until the context ends or the last resource
// version that was seen has expired.
func (s *eventSource) watch(ctx context.Context, resourceVersion string) (watch.Interface, error) {
	begin := s.cluster.recorded.Events(s.namespace).Watch
	if s.older {
		begin = s.cluster.core.Events(s.namespace).Watch
	}
	return watchtools.NewRetryWatcherWithContext(ctx, resourceVersion, &cache.ListWatch{WatchFuncWithContext: begin})
}

// eventIn is the event of a change that a watch reports, in either API.
func eventIn(object runtime.Object) (eventsv1.Event, bool) {
	switch event := object.(type) {
	case *eventsv1.Event:
		return *event, true
	case *corev1.Event:
		return fromOlder(event), true
	default:
		return eventsv1.Event{}, false
	}
}

// fromOlder converts an event of the older API to events.k8s.io.
func fromOlder(older *corev1.Event) eventsv1.Event {
	event := eventsv1.Event{
		ObjectMeta: older.ObjectMeta, EventTime: older.EventTime, Type: older.Type, Reason: older.Reason, Note: older.Message,
		Regarding: older.InvolvedObject, ReportingController: older.ReportingController, DeprecatedSource: older.Source,
		DeprecatedFirstTimestamp: older.FirstTimestamp, DeprecatedLastTimestamp: older.LastTimestamp, DeprecatedCount: older.Count,
	}
	if older.Series != nil {
		event.Series = &eventsv1.EventSeries{Count: older.Series.Count, LastObservedTime: older.Series.LastObservedTime}
	}
	return event
}
