package headscale

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// How each kind of object is compared.
var (
	configMaps      = kind[*corev1ac.ConfigMapApplyConfiguration, *corev1.ConfigMap]{extract: corev1ac.ExtractConfigMap}
	roles           = kind[*rbacv1ac.RoleApplyConfiguration, *rbacv1.Role]{extract: rbacv1ac.ExtractRole}
	roleBindings    = kind[*rbacv1ac.RoleBindingApplyConfiguration, *rbacv1.RoleBinding]{extract: rbacv1ac.ExtractRoleBinding}
	services        = kind[*corev1ac.ServiceApplyConfiguration, *corev1.Service]{extract: corev1ac.ExtractService}
	serviceAccounts = kind[*corev1ac.ServiceAccountApplyConfiguration, *corev1.ServiceAccount]{extract: corev1ac.ExtractServiceAccount}
)

// statefulSets tells the pass of the newest StatefulSet and of what its claims
// cannot do.
func statefulSets(r *HeadscaleReconciler, p *pass) kind[*appsv1ac.StatefulSetApplyConfiguration, *appsv1.StatefulSet] {
	return kind[*appsv1ac.StatefulSetApplyConfiguration, *appsv1.StatefulSet]{
		extract: extractStatefulSet,
		adopt: func(want, owned *appsv1ac.StatefulSetApplyConfiguration, live *appsv1.StatefulSet) *appsv1ac.StatefulSetApplyConfiguration {
			want, p.grow, p.refused = adoptClaims(want, owned, live)
			return want
		},
		rehearse: true,
		found:    func(live *appsv1.StatefulSet) { p.statefulSet = live },
		made: func(live *appsv1.StatefulSet) {
			r.record(p.headscale, occurrence{false, v1beta1.EventCreated, fmt.Sprintf("StatefulSet %s was made", live.Name)})
		},
	}
}

// apply makes the objects that a Headscale wants what they should be.
func (r *HeadscaleReconciler) apply(ctx context.Context, p *pass) error {
	plan := &plan{reconciler: r, headscale: p.headscale}
	want := p.objects
	for _, look := range []func() error{
		func() error { return add(ctx, plan, want.ServiceAccount, serviceAccounts) },
		func() error { return add(ctx, plan, want.Role, roles) },
		func() error { return add(ctx, plan, want.RoleBinding, roleBindings) },
		func() error { return add(ctx, plan, want.ConfigMap, configMaps) },
		func() error { return add(ctx, plan, want.Service, services) },
		func() error { return add(ctx, plan, want.MetricsService, services) },
		func() error { return add(ctx, plan, want.StatefulSet, statefulSets(r, p)) },
	} {
		if err := look(); err != nil {
			return err
		}
	}
	p.changed = len(plan.writes) > 0
	return plan.carryOut(ctx)
}

// prune deletes the objects that a Headscale does not want any more. The cache does not
// hold one that lost its labels, so after a change the API server is asked.
func (r *HeadscaleReconciler) prune(ctx context.Context, p *pass) error {
	reader := client.Reader(r.Client)
	if p.changed {
		reader = r.Live
	}
	if p.objects.RoleBinding == nil {
		if err := remove[rbacv1.RoleBinding](ctx, reader, r.Client, p.headscale, p.headscale.Name); err != nil {
			return err
		}
	}
	if p.objects.Role == nil {
		if err := remove[rbacv1.Role](ctx, reader, r.Client, p.headscale, p.headscale.Name); err != nil {
			return err
		}
	}
	if p.objects.MetricsService == nil {
		return remove[corev1.Service](ctx, reader, r.Client, p.headscale, resources.MetricsServiceName(p.headscale))
	}
	return nil
}
