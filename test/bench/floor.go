package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	controller "infrado.cloud/headscale-operator/internal/controller/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/env"
)

const (
	// floorNamespace is where the objects are that no operator made.
	floorNamespace = "bench-floor"
	// appliers is how many Headscales' objects are applied at the same time, as many as the
	// operator looks after at once.
	appliers = 16
)

// makeFloor makes as many Headscales with all their objects, without the operator and
// without any of its questions: what remains is what the API server takes for the objects.
func (b *operatorBench) makeFloor(ctx context.Context) error {
	if err := b.operator.Stop(); err != nil {
		return err
	}
	if err := b.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: floorNamespace}}); err != nil {
		return err
	}
	sets, err := watchStatefulSets(ctx, b.admin, floorNamespace)
	if err != nil {
		return err
	}
	defer sets.stop()
	began := time.Now()
	if err := b.forEach(ctx, appliers, b.applyAll); err != nil {
		return err
	}
	last, err := sets.wait(ctx, b.cost.size)
	b.cost.floor = last.Sub(began)
	return err
}

// applyAll makes a Headscale and applies what the operator would, in its order.
func (b *operatorBench) applyAll(ctx context.Context, name string) error {
	headscale, err := newHeadscale(floorNamespace, name)
	if err != nil {
		return err
	}
	if err := b.admin.Create(ctx, headscale); err != nil {
		return err
	}
	want, err := resources.Build(headscale, resources.Options{ManagerImage: env.ManagerImage})
	if err != nil {
		return err
	}
	for _, object := range []runtime.ApplyConfiguration{
		want.ServiceAccount, want.Role, want.RoleBinding, want.ConfigMap, want.Service, want.MetricsService, want.StatefulSet,
	} {
		if err := b.admin.Apply(ctx, object, client.FieldOwner(controller.FieldManager)); err != nil {
			return err
		}
	}
	return nil
}
