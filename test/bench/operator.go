package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	controller "infrado.cloud/headscale-operator/internal/controller/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/env"
)

const (
	// operatorUser is who the operator is with config/default.
	operatorUser = "system:serviceaccount:headscale-operator-system:headscale-operator-controller-manager"
	// operatorNamespace is where all Headscales are.
	operatorNamespace = "bench"
	// creators is how many Headscales are made at the same time.
	creators = 8
	// changes is how many Headscales are changed, one after another.
	changes = 20
	// quiet is how long the operator must ask for nothing to count as at rest, and look how
	// often that is looked at.
	quiet = 5 * time.Second
	look  = 250 * time.Millisecond
	// limit is how long anything that is waited for may take.
	limit = 10 * time.Minute
	// floorNamespace is where the objects are that no operator made.
	floorNamespace = "bench-floor"
	// appliers is how many Headscales' objects are applied at the same time, as many as the
	// operator reconciles at once.
	appliers = 16
)

// operatorCost is what a number of Headscales costs.
type operatorCost struct {
	size int
	// made is how long after the first Headscale was created all StatefulSets existed.
	made time.Duration
	// floor is how long the same objects took when they were applied by nobody who looks.
	floor time.Duration
	// making and touching are the operator's requests in each part, and busyMaking is how long
	// it kept processors busy.
	making, touching counts
	busyMaking       time.Duration
	// changing is, for each change of a Headscale, how long after it the StatefulSet changed.
	changing []time.Duration
	// memoryBefore is in MiB, without Headscales.
	memoryBefore float64
	resting
	// memoryEach is by how many KiB the operator is larger for each Headscale that it has
	// more than in the measurement before.
	memoryEach float64
}

// operatorBench is an operator in a lab of its own.
type operatorBench struct {
	*lab
	sets *statefulSets
	cost *operatorCost
}

// measureOperators measures the operator with each number of Headscales, on a fresh API server.
func measureOperators(ctx context.Context, settings *settings) report {
	var costs []*operatorCost
	for _, size := range settings.sizes {
		cost := &operatorCost{size: size}
		inLab(settings, func(l *lab) {
			check(l.StartOperator(ctx))
			check(l.Admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}}))
			b := &operatorBench{lab: l, cost: cost, sets: watchStatefulSets(ctx, l.Admin, operatorNamespace)}
			defer b.sets.stop()
			b.measure(ctx)
		})
		costs = append(costs, cost)
	}
	return describeOperators(costs)
}

// measure measures part after part.
func (b *operatorBench) measure(ctx context.Context) {
	rest := b.settings.restWith(b.cost.size)
	for _, part := range []struct {
		name string
		do   func(context.Context)
	}{
		{"making them", b.make},
		{"touching them", b.touch},
		{"changing some", b.change},
		{"at rest for " + rest.String(), func(ctx context.Context) {
			b.cost.resting = b.watchRest(ctx, rest, b.Operator.Process().PID(), operatorUser)
		}},
		{"the same objects without the operator", b.makeFloor},
	} {
		say("%d Headscales: %s", b.cost.size, part.name)
		if err := attempt(func() { part.do(ctx) }); err != nil {
			check(fmt.Errorf("%d Headscales: %s: %w; the operator said:\n%s", b.cost.size, part.name, err, b.Operator.Process().Log().Tail(5)))
		}
	}
}

// make makes the Headscales and waits until all is done for them.
func (b *operatorBench) make(ctx context.Context) {
	before := b.settle(ctx)
	b.cost.memoryBefore = memoryOf(b.Operator.Process().PID(), "Pss")
	busyBefore := processorTime(b.Operator.Process().PID())
	began := time.Now()
	b.forEach(ctx, creators, func(ctx context.Context, name string) error {
		return b.Admin.Create(ctx, newHeadscale(operatorNamespace, name))
	})
	b.cost.made = b.sets.wait(ctx, b.cost.size).Sub(began)
	b.cost.making = b.settle(ctx).minus(before)
	b.cost.busyMaking = processorTime(b.Operator.Process().PID()) - busyBefore
}

// newHeadscale is one as a user makes it who leaves all defaults.
func newHeadscale(namespace, name string) *v1beta1.Headscale {
	return &v1beta1.Headscale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1beta1.HeadscaleSpec{
			Version: headscaleVersion,
			Config:  must(v1beta1.NewHeadscaleConfig(map[string]any{"server_url": "https://" + name + ".example.com"})),
			// A Secret has one Headscale that looks after it.
			APIKey: v1beta1.APIKeySpec{SecretName: name + "-key", Expiration: "2160h"},
		},
	}
}

// touch changes every Headscale in a way that means nothing.
func (b *operatorBench) touch(ctx context.Context) {
	before := b.count(operatorUser)
	b.forEach(ctx, creators, func(ctx context.Context, name string) error {
		return b.patch(ctx, name, `{"metadata":{"annotations":{"touched":"yes"}}}`)
	})
	b.cost.touching = b.settle(ctx).minus(before)
}

// change changes the config of Headscales, each when the one before has its changed
// StatefulSet.
func (b *operatorBench) change(ctx context.Context) {
	levels := []string{"debug", "info", "warn", "error"}
	for i := range changes {
		name := headscaleName(i * b.cost.size / changes)
		patch := fmt.Sprintf(`{"spec":{"config":{"log":{"level":%q}}}}`, levels[i%len(levels)])
		b.cost.changing = append(b.cost.changing, b.sets.change(ctx, name, func() error { return b.patch(ctx, name, patch) }))
	}
	b.settle(ctx)
}

// patch merges something into a Headscale.
func (b *operatorBench) patch(ctx context.Context, name, patch string) error {
	headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name}}
	return b.Admin.Patch(ctx, headscale, client.RawPatch(types.MergePatchType, []byte(patch)))
}

// makeFloor makes as many Headscales with all their objects, without the operator and
// without any of its questions: what remains is what the API server takes for the objects.
func (b *operatorBench) makeFloor(ctx context.Context) {
	check(b.Operator.Stop())
	check(b.Admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: floorNamespace}}))
	sets := watchStatefulSets(ctx, b.Admin, floorNamespace)
	defer sets.stop()
	began := time.Now()
	b.forEach(ctx, appliers, b.applyAll)
	b.cost.floor = sets.wait(ctx, b.cost.size).Sub(began)
}

// applyAll makes a Headscale and applies what the operator would, in its order.
func (b *operatorBench) applyAll(ctx context.Context, name string) error {
	headscale := newHeadscale(floorNamespace, name)
	if err := b.Admin.Create(ctx, headscale); err != nil {
		return err
	}
	want := must(resources.Build(headscale, resources.Options{ManagerImage: env.ManagerImage}))
	for _, object := range []runtime.ApplyConfiguration{
		want.ServiceAccount, want.Role, want.RoleBinding, want.ConfigMap, want.Service, want.MetricsService, want.StatefulSet,
	} {
		if err := b.Admin.Apply(ctx, object, client.FieldOwner(controller.FieldManager)); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the operator has asked for nothing for a while.
func (b *operatorBench) settle(ctx context.Context) counts {
	var last counts
	since := time.Now()
	err := wait.PollUntilContextTimeout(ctx, look, limit, true, func(context.Context) (bool, error) {
		if !b.Operator.Process().Running() {
			return false, errors.New("the operator ended")
		}
		if now := b.count(operatorUser); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) >= quiet, nil
	})
	if err != nil {
		check(fmt.Errorf("the operator does not come to rest: %w; its requests so far: %+v", err, last))
	}
	return last
}

// forEach does something for every Headscale, for some at a time.
func (b *operatorBench) forEach(ctx context.Context, atOnce int, do func(context.Context, string) error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range b.cost.size {
		group.Go(func() (err error) {
			return errors.Join(attempt(func() { err = do(ctx, headscaleName(i)) }), err)
		})
	}
	check(group.Wait())
}

// headscaleName is the name of a Headscale by its number.
func headscaleName(number int) string { return fmt.Sprintf("headscale-%03d", number) }

// pause lets time pass, unless the context ends.
func pause(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
		check(ctx.Err())
	case <-time.After(length):
	}
}

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
