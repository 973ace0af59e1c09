package main

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// statefulSets are those of a namespace, and which generation of each was seen.
type statefulSets struct {
	stop        func()
	seen        <-chan sighting[*metav1.PartialObjectMetadata]
	generations map[string]int64
}

// watchStatefulSets begins to watch those of a namespace.
func watchStatefulSets(ctx context.Context, admin client.WithWatch, namespace string) *statefulSets {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("StatefulSetList"))
	s := &statefulSets{generations: map[string]int64{}}
	s.seen, s.stop = follow[*metav1.PartialObjectMetadata](ctx, admin, list, namespace)
	return s
}

// until looks at what was seen until something holds, and returns when that was seen.
func (s *statefulSets) until(ctx context.Context, what string, holds func() bool) (last time.Time) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			check(fmt.Errorf("%s: there are %d StatefulSets: %w", what, len(s.generations), ctx.Err()))
		case seen, open := <-s.seen:
			if !open {
				check(fmt.Errorf("%s: the watch of the StatefulSets ended", what))
			}
			s.generations[seen.object.Name], last = seen.object.Generation, seen.at
		}
	}
	return last
}

// wait waits until there are that many, and returns when the last one came.
func (s *statefulSets) wait(ctx context.Context, size int) time.Time {
	return s.until(ctx, fmt.Sprintf("waiting for %d", size), func() bool { return len(s.generations) >= size })
}

// change changes something and returns how long after the answer the StatefulSet of that
// name has another specification.
func (s *statefulSets) change(ctx context.Context, name string, change func() error) time.Duration {
	before := s.generations[name]
	check(change())
	began := time.Now()
	changed := s.until(ctx, name+" does not change", func() bool { return s.generations[name] > before })
	// It may have been faster than the answer.
	return max(0, changed.Sub(began))
}
