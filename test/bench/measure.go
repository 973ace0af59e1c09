package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const (
	// namespace is where all Headscales are.
	namespace = "bench"
	// creators is how many Headscales are made at the same time.
	creators = 8
	// quiet is how long the operator must ask for nothing to count as at rest.
	quiet = 5 * time.Second
	// limit is how long anything that is waited for may take.
	limit = 10 * time.Minute
)

// measurement is what a number of Headscales costs.
type measurement struct {
	size int
	// made is how long after the first Headscale was created all StatefulSets existed.
	made time.Duration
	// making, touching and resting are the operator's requests in each part.
	making, touching, resting counts
	// rest is how long the operator was at rest.
	rest time.Duration
	// memoryBefore and memory are in MiB: without Headscales, and after the rest.
	memoryBefore, memory float64
	// processor is how long the operator kept processors busy at rest.
	processor time.Duration
}

// bench is an operator on an API server of its own.
type bench struct {
	audit *auditLog
	admin client.Client
	pid   int
}

// measure starts everything afresh, makes that many Headscales and looks on.
func measure(ctx context.Context, size int, rest time.Duration) (m measurement, err error) {
	guard, err := process.NewGuard("hs-bench-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, guard.Close()) }()
	audit, err := newAuditLog(guard.Dir())
	if err != nil {
		return m, err
	}
	root, err := serverbuild.FindRoot()
	if err != nil {
		return m, err
	}
	servers, err := serverbuild.Find(serverbuild.Options{Root: root})
	if err != nil {
		return m, err
	}
	plane, err := env.StartControlPlane(env.ControlPlaneOptions{Servers: servers, Guard: guard, Configure: audit.configure})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	b := &bench{audit: audit}
	operator, err := b.start(ctx, root, guard, plane)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, operator.Stop()) }()
	m = measurement{size: size, rest: rest}
	for _, part := range []func(context.Context, *measurement) error{b.make, b.touch, b.watchRest} {
		if err := part(ctx, &m); err != nil {
			return m, err
		}
	}
	return m, nil
}

// start installs and starts the operator.
func (b *bench) start(ctx context.Context, root string, guard *process.Guard, plane *env.ControlPlane) (*env.Operator, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme))
	if err != nil {
		return nil, err
	}
	config := plane.Config()
	config.QPS = -1
	if b.admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, err
	}
	binaries, err := env.BuildBinaries(ctx, root, guard.Dir(), os.Stderr)
	if err != nil {
		return nil, err
	}
	if err := plane.InstallOperator(ctx, root); err != nil {
		return nil, err
	}
	operator, err := env.StartOperator(ctx, env.OperatorOptions{Binary: binaries.Operator, ControlPlane: plane, Admin: b.admin, Guard: guard})
	if err != nil {
		return nil, err
	}
	b.pid = operator.Process().PID()
	return operator, b.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
}

// make makes the Headscales and waits until all is done for them.
func (b *bench) make(ctx context.Context, m *measurement) error {
	before, err := b.settle(ctx)
	if err != nil {
		return err
	}
	if m.memoryBefore, err = memory(b.pid); err != nil {
		return err
	}
	began := time.Now()
	err = b.forEach(ctx, m.size, func(ctx context.Context, name string) error {
		config, err := v1beta1.NewHeadscaleConfig(map[string]any{"server_url": "https://" + name + ".example.com"})
		if err != nil {
			return err
		}
		return b.admin.Create(ctx, &v1beta1.Headscale{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: v1beta1.HeadscaleSpec{
				Version: "v0.29.3", Config: config,
				// A Secret has one Headscale that looks after it.
				APIKey: v1beta1.APIKeySpec{SecretName: name + "-key", Expiration: "2160h"},
			},
		})
	})
	if err != nil {
		return err
	}
	if err := b.waitForStatefulSets(ctx, m.size); err != nil {
		return err
	}
	m.made = time.Since(began)
	after, err := b.settle(ctx)
	m.making = after.minus(before)
	return err
}

// waitForStatefulSets waits until there are that many.
func (b *bench) waitForStatefulSets(ctx context.Context, size int) error {
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("StatefulSetList"))
		err := b.admin.List(ctx, list, client.InNamespace(namespace))
		return len(list.Items) == size, err
	})
}

// touch changes every Headscale in a way that means nothing.
func (b *bench) touch(ctx context.Context, m *measurement) error {
	before, err := b.audit.count()
	if err != nil {
		return err
	}
	err = b.forEach(ctx, m.size, func(ctx context.Context, name string) error {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"touched":"yes"}}}`))
		return b.admin.Patch(ctx, &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, patch)
	})
	if err != nil {
		return err
	}
	after, err := b.settle(ctx)
	m.touching = after.minus(before)
	return err
}

// watchRest looks on while nothing happens.
func (b *bench) watchRest(ctx context.Context, m *measurement) error {
	before, err := b.audit.count()
	if err != nil {
		return err
	}
	busyBefore, err := processorTime(b.pid)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(m.rest):
	}
	after, err := b.audit.count()
	if err != nil {
		return err
	}
	busy, err := processorTime(b.pid)
	if err != nil {
		return err
	}
	m.resting, m.processor = after.minus(before), busy-busyBefore
	m.memory, err = memory(b.pid)
	return err
}

// settle waits until the operator has asked for nothing for a while.
func (b *bench) settle(ctx context.Context) (counts, error) {
	last := counts{requests: -1}
	err := wait.PollUntilContextTimeout(ctx, quiet, limit, true, func(context.Context) (bool, error) {
		now, err := b.audit.count()
		still := now == last
		last = now
		return still, err
	})
	return last, err
}

// forEach does something for every Headscale, several at a time.
func (b *bench) forEach(ctx context.Context, size int, do func(context.Context, string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(creators)
	for i := range size {
		group.Go(func() error { return do(ctx, fmt.Sprintf("headscale-%03d", i)) })
	}
	return group.Wait()
}
