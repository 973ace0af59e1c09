package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	controller "infrado.cloud/headscale-operator/internal/controller/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/env"
)

const (
	// operatorNamespace is where all Headscales are, and floorNamespace where the objects are
	// that no operator made.
	operatorNamespace = "bench"
	floorNamespace    = "bench-floor"
	// creators is how many Headscales are made at the same time, and appliers how many
	// Headscales' objects are applied, as many as the operator reconciles at once.
	creators = 8
	appliers = 16
	// changes is how many Headscales are changed, one after another.
	changes = 20
	// quiet is how long the operator must ask for nothing to count as at rest, and look how
	// often that is looked at.
	quiet = 5 * time.Second
	look  = 250 * time.Millisecond
	// limit is how long anything that is waited for may take.
	limit = 10 * time.Minute
)

// operatorBench is an operator in a lab of its own.
type operatorBench struct {
	*lab
	sets watch.Interface
	// generations are those of the StatefulSets that were seen.
	generations map[string]int64
	operatorCost
}

// operatorCost is what a number of Headscales costs.
type operatorCost struct {
	size int
	// made is how long after the first Headscale was created all StatefulSets existed, and
	// floor how long the same objects took when they were applied by nobody who looks.
	made, floor time.Duration
	// making are the requests until all was done for the Headscales, and busy is how long that
	// kept processors busy.
	making counts
	busy   time.Duration
	// touching are the requests for changes that mean nothing.
	touching counts
	// changing is, for each change of a Headscale, how long after it the StatefulSet changed.
	changing []time.Duration
	// memoryBefore is the memory in MiB before there was any Headscale.
	memoryBefore float64
	resting
}

// measureOperators measures the operator with each number of Headscales, on a fresh API server.
func measureOperators(ctx context.Context, settings *settings) []row {
	var costs []operatorCost
	for _, size := range settings.sizes {
		inLab(ctx, settings, func(ctx context.Context, l *lab) {
			b := l.newOperatorBench(ctx, size)
			with(l.Operator.Process(), func() { b.measure(ctx, settings.rest) })
			costs = append(costs, b.operatorCost)
		})
	}
	return operatorRows(costs)
}

// newOperatorBench starts an operator in a lab.
func (l *lab) newOperatorBench(ctx context.Context, size int) *operatorBench {
	check(l.StartOperator(ctx))
	for _, name := range []string{operatorNamespace, floorNamespace} {
		check(l.Admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	sets := must(l.Admin.Watch(ctx, &appsv1.StatefulSetList{}, client.InNamespace(operatorNamespace)))
	return &operatorBench{lab: l, operatorCost: operatorCost{size: size}, sets: sets, generations: map[string]int64{}}
}

// measure measures part after part.
func (b *operatorBench) measure(ctx context.Context, rest time.Duration) {
	pid := b.Operator.Process().PID()
	before := b.settle(ctx)
	b.memoryBefore = memoryOf(pid, "Pss")
	say("%d Headscales: making them", b.size)
	busyBefore := processorTime(pid)
	b.make(ctx)
	made := b.settle(ctx)
	b.making, b.busy = made.minus(before), processorTime(pid)-busyBefore
	say("%d Headscales: touching them", b.size)
	b.touch(ctx)
	b.touching = b.settle(ctx).minus(made)
	say("%d Headscales: changing some", b.size)
	b.change(ctx)
	b.settle(ctx)
	say("%d Headscales: at rest for %s", b.size, rest)
	b.resting = b.watchRest(ctx, rest, pid)
	say("%d Headscales: the same objects without the operator", b.size)
	b.makeFloor(ctx)
}

// make makes the Headscales, and waits for their StatefulSets.
func (b *operatorBench) make(ctx context.Context) {
	began := time.Now()
	together(ctx, func(ctx context.Context) {
		forEach(ctx, b.size, creators, func(ctx context.Context, i int) {
			check(b.Admin.Create(ctx, newHeadscale(operatorNamespace, headscaleName(i))))
		})
	}, func(ctx context.Context) {
		b.made = b.awaitSets(ctx, func(string) bool { return len(b.generations) == b.size }).Sub(began)
	})
}

// touch changes every Headscale in a way that means nothing.
func (b *operatorBench) touch(ctx context.Context) {
	forEach(ctx, b.size, creators, func(ctx context.Context, i int) {
		b.patch(ctx, headscaleName(i), `{"metadata":{"annotations":{"touched":"yes"}}}`)
	})
}

// change changes the config of Headscales, each when the one before has its changed
// StatefulSet.
func (b *operatorBench) change(ctx context.Context) {
	levels := []string{"debug", "info", "warn", "error"}
	for i := range changes {
		name := headscaleName(i * b.size / changes)
		before := b.generations[name]
		b.patch(ctx, name, fmt.Sprintf(`{"spec":{"config":{"log":{"level":%q}}}}`, levels[i%len(levels)]))
		began := time.Now()
		changed := b.awaitSets(ctx, func(seen string) bool { return seen == name && b.generations[name] > before })
		b.changing = append(b.changing, changed.Sub(began))
	}
}

// makeFloor makes as many Headscales with all their objects, without the operator and
// without any of its questions: what remains is what the API server takes for the objects.
func (b *operatorBench) makeFloor(ctx context.Context) {
	check(b.Operator.Stop())
	began := time.Now()
	forEach(ctx, b.size, appliers, func(ctx context.Context, i int) {
		headscale := newHeadscale(floorNamespace, headscaleName(i))
		check(b.Admin.Create(ctx, headscale))
		want := must(resources.Build(headscale, resources.Options{ManagerImage: env.ManagerImage}))
		for _, object := range []runtime.ApplyConfiguration{
			want.ServiceAccount, want.Role, want.RoleBinding, want.ConfigMap, want.Service, want.MetricsService, want.StatefulSet,
		} {
			check(b.Admin.Apply(ctx, object, client.FieldOwner(controller.FieldManager)))
		}
	})
	b.floor = time.Since(began)
}

// headscaleName is the name of a Headscale by its number.
func headscaleName(number int) string { return fmt.Sprintf("headscale-%03d", number) }

// newHeadscale is one as a user makes it who leaves all defaults.
func newHeadscale(namespace, name string) *v1beta1.Headscale {
	return &v1beta1.Headscale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1beta1.HeadscaleSpec{
			Version: headscaleVersion,
			Config:  must(v1beta1.NewHeadscaleConfig(map[string]any{"server_url": "https://" + name + ".example.com"})),
			// A Secret belongs to one Headscale.
			APIKey: v1beta1.APIKeySpec{SecretName: name + "-key", Expiration: "2160h"},
		},
	}
}

// patch merges something into a Headscale.
func (b *operatorBench) patch(ctx context.Context, name, patch string) {
	headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name}}
	check(b.Admin.Patch(ctx, headscale, client.RawPatch(types.MergePatchType, []byte(patch))))
}

// awaitSets looks at what is seen of StatefulSets, each by its name, until something holds, and
// returns when that was seen.
func (b *operatorBench) awaitSets(ctx context.Context, holds func(name string) bool) time.Time {
	return until(ctx, b.sets, limit, func(set *appsv1.StatefulSet) bool {
		b.generations[set.Name] = set.Generation
		return holds(set.Name)
	})
}

// settle waits until the operator has asked for nothing for a while, and returns its requests
// so far.
func (b *operatorBench) settle(ctx context.Context) (last counts) {
	since := time.Now()
	check(wait.PollUntilContextTimeout(ctx, look, limit, true, func(context.Context) (bool, error) {
		if !b.Operator.Process().Running() {
			return false, errors.New("the operator ended")
		}
		if now := b.count(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) >= quiet, nil
	}))
	return last
}
