package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// sightings is how many changes of StatefulSets may wait to be looked at. There are fewer in
// the longest part.
const sightings = 1 << 14

// sighting is a StatefulSet as it was at some time.
type sighting struct {
	name       string
	generation int64
	at         time.Time
}

// statefulSets watches the StatefulSets, which costs the API server less than asking.
type statefulSets struct {
	watcher     watch.Interface
	seen        chan sighting
	generations map[string]int64
}

// watchStatefulSets begins to watch those of a namespace.
func watchStatefulSets(ctx context.Context, admin client.WithWatch, namespace string) (*statefulSets, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("StatefulSetList"))
	watcher, err := admin.Watch(ctx, list, client.InNamespace(namespace))
	if err != nil {
		return nil, err
	}
	s := &statefulSets{watcher: watcher, seen: make(chan sighting, sightings), generations: map[string]int64{}}
	go s.run()
	return s, nil
}

// run notes when something is seen, whoever looks at it later.
func (s *statefulSets) run() {
	defer close(s.seen)
	for event := range s.watcher.ResultChan() {
		if object, err := meta.Accessor(event.Object); err == nil {
			s.seen <- sighting{object.GetName(), object.GetGeneration(), time.Now()}
		}
	}
}

// stop ends watching.
func (s *statefulSets) stop() { s.watcher.Stop() }

// next returns the next sighting.
func (s *statefulSets) next(ctx context.Context) (sighting, error) {
	select {
	case <-ctx.Done():
		return sighting{}, ctx.Err()
	case seen, open := <-s.seen:
		if !open {
			return sighting{}, errors.New("the watch of the StatefulSets ended")
		}
		s.generations[seen.name] = seen.generation
		return seen, nil
	}
}

// wait waits until there are that many, and returns when the last one came.
func (s *statefulSets) wait(ctx context.Context, size int) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for len(s.generations) < size {
		seen, err := s.next(ctx)
		if err != nil {
			return last, fmt.Errorf("there are %d of %d StatefulSets: %w", len(s.generations), size, err)
		}
		last = seen.at
	}
	return last, nil
}

// change changes something and returns how long after the answer the StatefulSet of that
// name has another specification.
func (s *statefulSets) change(ctx context.Context, name string, change func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	before := s.generations[name]
	if err := change(); err != nil {
		return 0, err
	}
	began := time.Now()
	for s.generations[name] <= before {
		seen, err := s.next(ctx)
		if err != nil {
			return 0, fmt.Errorf("StatefulSet %s does not change: %w", name, err)
		}
		if seen.name == name && seen.generation > before {
			// It may have been faster than the answer.
			return max(0, seen.at.Sub(began)), nil
		}
	}
	return 0, nil
}
