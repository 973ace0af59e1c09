package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
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
)

// operatorCost is what a number of Headscales costs.
type operatorCost struct {
	size int
	// made is how long after the first Headscale was created all StatefulSets existed.
	made time.Duration
	// floor is how long the same objects took when they were applied by nobody who looks.
	floor time.Duration
	// making, touching and resting are the operator's requests in each part.
	making, touching, resting counts
	// busyMaking and busyResting are how long it kept processors busy.
	busyMaking, busyResting time.Duration
	// changing is, for each change of a Headscale, how long after it the StatefulSet changed.
	changing []time.Duration
	// rest is how long the operator was watched at rest.
	rest time.Duration
	// memoryBefore and memory are in MiB: without Headscales, and after the rest. anonymous is
	// the part of memory that is no page of the binary.
	memoryBefore, memory, anonymous float64
	// memoryEach is by how many KiB the operator is larger for each Headscale that it has
	// more than in the measurement before.
	memoryEach float64
}

// operatorBench is an operator on a stage of its own.
type operatorBench struct {
	*stage
	operator *env.Operator
	sets     *statefulSets
	cost     *operatorCost
}

// operatorTakes is about how long measureOperators takes.
func operatorTakes(s *settings) time.Duration {
	var total time.Duration
	for _, size := range s.sizes {
		total += 50*time.Second + time.Duration(size)*100*time.Millisecond + s.restWith(size)
	}
	return total
}

// measureOperators measures the operator with each number of Headscales.
func measureOperators(ctx context.Context, l *lab) (report, error) {
	var costs []*operatorCost
	for _, size := range l.settings.sizes {
		cost := &operatorCost{size: size, rest: l.settings.restWith(size)}
		err := l.onStage(ctx, func(ctx context.Context, s *stage) error { return measureOperator(ctx, l, s, cost) })
		if err != nil {
			return report{}, fmt.Errorf("with %d Headscales: %w", size, err)
		}
		costs = append(costs, cost)
	}
	return describeOperators(costs), nil
}

// measureOperator installs and starts the operator, and measures part after part.
func measureOperator(ctx context.Context, l *lab, s *stage, cost *operatorCost) (err error) {
	if err := s.plane.InstallOperator(ctx, l.root); err != nil {
		return err
	}
	operator, err := env.StartOperator(ctx, env.OperatorOptions{Binary: l.operator, ControlPlane: s.plane, Admin: s.admin, Guard: s.guard})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, operator.Stop()) }()
	if err := s.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}}); err != nil {
		return err
	}
	sets, err := watchStatefulSets(ctx, s.admin, operatorNamespace)
	if err != nil {
		return err
	}
	defer sets.stop()
	b := &operatorBench{stage: s, operator: operator, sets: sets, cost: cost}
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"making them", b.make},
		{"touching them", b.touch},
		{"changing some", b.change},
		{"at rest for " + cost.rest.String(), b.watchRest},
		{"the same objects without the operator", b.makeFloor},
	} {
		say("%d Headscales: %s", cost.size, part.name)
		if err := part.do(ctx); err != nil {
			return fmt.Errorf("%s: %w; the operator said:\n%s", part.name, err, operator.Process().Log().Tail(5))
		}
	}
	return nil
}

// pid is the operator's process.
func (b *operatorBench) pid() int { return b.operator.Process().PID() }

// make makes the Headscales and waits until all is done for them.
func (b *operatorBench) make(ctx context.Context) error {
	before, err := b.settle(ctx)
	if err != nil {
		return err
	}
	if b.cost.memoryBefore, err = memory(b.pid()); err != nil {
		return err
	}
	busyBefore, err := processorTime(b.pid())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.forEach(ctx, creators, b.create); err != nil {
		return err
	}
	last, err := b.sets.wait(ctx, b.cost.size)
	if err != nil {
		return err
	}
	b.cost.made = last.Sub(began)
	after, err := b.settle(ctx)
	if err != nil {
		return err
	}
	b.cost.making = after.minus(before)
	busy, err := processorTime(b.pid())
	b.cost.busyMaking = busy - busyBefore
	return err
}

// create makes a Headscale.
func (b *operatorBench) create(ctx context.Context, name string) error {
	headscale, err := newHeadscale(operatorNamespace, name)
	if err != nil {
		return err
	}
	return b.admin.Create(ctx, headscale)
}

// newHeadscale is one as a user makes it who leaves all defaults.
func newHeadscale(namespace, name string) (*v1beta1.Headscale, error) {
	config, err := v1beta1.NewHeadscaleConfig(map[string]any{"server_url": "https://" + name + ".example.com"})
	return &v1beta1.Headscale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1beta1.HeadscaleSpec{
			Version: headscaleVersion, Config: config,
			// A Secret has one Headscale that looks after it.
			APIKey: v1beta1.APIKeySpec{SecretName: name + "-key", Expiration: "2160h"},
		},
	}, err
}

// touch changes every Headscale in a way that means nothing.
func (b *operatorBench) touch(ctx context.Context) error {
	before, err := b.audit.count(operatorUser)
	if err != nil {
		return err
	}
	err = b.forEach(ctx, creators, func(ctx context.Context, name string) error {
		return b.patch(ctx, name, `{"metadata":{"annotations":{"touched":"yes"}}}`)
	})
	if err != nil {
		return err
	}
	after, err := b.settle(ctx)
	b.cost.touching = after.minus(before)
	return err
}

// change changes the config of Headscales, each when the one before has its changed
// StatefulSet.
func (b *operatorBench) change(ctx context.Context) error {
	levels := []string{"debug", "info", "warn", "error"}
	for i := range changes {
		name := headscaleName(i * b.cost.size / changes)
		patch := fmt.Sprintf(`{"spec":{"config":{"log":{"level":%q}}}}`, levels[i%len(levels)])
		took, err := b.sets.change(ctx, name, func() error { return b.patch(ctx, name, patch) })
		if err != nil {
			return err
		}
		b.cost.changing = append(b.cost.changing, took)
	}
	_, err := b.settle(ctx)
	return err
}

// patch merges something into a Headscale.
func (b *operatorBench) patch(ctx context.Context, name, patch string) error {
	headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name}}
	return b.admin.Patch(ctx, headscale, client.RawPatch(types.MergePatchType, []byte(patch)))
}

// watchRest looks on while nothing happens.
func (b *operatorBench) watchRest(ctx context.Context) error {
	before, err := b.audit.count(operatorUser)
	if err != nil {
		return err
	}
	busyBefore, err := processorTime(b.pid())
	if err != nil {
		return err
	}
	if err := pause(ctx, b.cost.rest); err != nil {
		return err
	}
	busy, err := processorTime(b.pid())
	if err != nil {
		return err
	}
	after, err := b.audit.count(operatorUser)
	if err != nil {
		return err
	}
	b.cost.resting, b.cost.busyResting = after.minus(before), busy-busyBefore
	if b.cost.memory, err = memory(b.pid()); err != nil {
		return err
	}
	b.cost.anonymous, err = memoryOf(b.pid(), "Pss_Anon")
	return err
}

// settle waits until the operator has asked for nothing for a while.
func (b *operatorBench) settle(ctx context.Context) (counts, error) {
	var last counts
	since := time.Now()
	err := wait.PollUntilContextTimeout(ctx, look, limit, true, func(context.Context) (bool, error) {
		if !b.operator.Process().Running() {
			return false, errors.New("the operator ended")
		}
		now, err := b.audit.count(operatorUser)
		if now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) >= quiet, err
	})
	if err != nil {
		return last, fmt.Errorf("the operator does not come to rest: %w; its requests so far: %+v", err, last)
	}
	return last, nil
}

// forEach does something for every Headscale, for some at a time.
func (b *operatorBench) forEach(ctx context.Context, atOnce int, do func(context.Context, string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range b.cost.size {
		group.Go(func() error { return do(ctx, headscaleName(i)) })
	}
	return group.Wait()
}

// headscaleName is the name of a Headscale by its number.
func headscaleName(number int) string { return fmt.Sprintf("headscale-%03d", number) }

// pause lets time pass, unless the context ends.
func pause(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(length):
		return nil
	}
}
