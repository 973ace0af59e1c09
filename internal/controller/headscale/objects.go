package headscale

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// How each kind of child object is compared and applied.
var (
	configMaps      = apply.Spec[*corev1ac.ConfigMapApplyConfiguration, *corev1.ConfigMap]{Extract: corev1ac.ExtractConfigMap}
	roles           = apply.Spec[*rbacv1ac.RoleApplyConfiguration, *rbacv1.Role]{Extract: rbacv1ac.ExtractRole}
	roleBindings    = apply.Spec[*rbacv1ac.RoleBindingApplyConfiguration, *rbacv1.RoleBinding]{Extract: rbacv1ac.ExtractRoleBinding}
	services        = apply.Spec[*corev1ac.ServiceApplyConfiguration, *corev1.Service]{Extract: corev1ac.ExtractService}
	serviceAccounts = apply.Spec[*corev1ac.ServiceAccountApplyConfiguration, *corev1.ServiceAccount]{Extract: corev1ac.ExtractServiceAccount}
)

// statefulSets notes the newest StatefulSet.
func (r *Reconciler) statefulSets(s scope, o *observed) apply.Spec[*appsv1ac.StatefulSetApplyConfiguration, *appsv1.StatefulSet] {
	return apply.Spec[*appsv1ac.StatefulSetApplyConfiguration, *appsv1.StatefulSet]{
		Extract:       extractStatefulSet,
		KeepImmutable: keepClaimTemplates,
		DryRun:        true,
		OnObserve:     func(live *appsv1.StatefulSet) { o.statefulSet = live },
		OnCreate: func(live *appsv1.StatefulSet) {
			status.Record(r.Events, s.headscale, status.Event{
				Action: status.ActionReconcile, Reason: v1beta1.EventCreated, Note: "Created StatefulSet " + live.Name,
			})
		},
	}
}

// clients are the ways to the API server that an apply takes.
func (r *Reconciler) clients() apply.Clients {
	return apply.Clients{Cache: r.Client, Live: r.Live, Writer: r.Client}
}

// apply brings the child objects to their desired state, and tells whether it wrote anything.
func (r *Reconciler) apply(ctx context.Context, s scope, o *observed, want *resources.Objects) (changed bool, err error) {
	plan := apply.NewPlan(r.clients(), s.headscale, FieldManager)
	if err := apply.Add(ctx, plan, want.ServiceAccount, serviceAccounts); err != nil {
		return false, err
	}
	if err := apply.Add(ctx, plan, want.Role, roles); err != nil {
		return false, err
	}
	if err := apply.Add(ctx, plan, want.RoleBinding, roleBindings); err != nil {
		return false, err
	}
	if err := apply.Add(ctx, plan, want.ConfigMap, configMaps); err != nil {
		return false, err
	}
	if err := apply.Add(ctx, plan, want.Service, services); err != nil {
		return false, err
	}
	if err := apply.Add(ctx, plan, want.MetricsService, services); err != nil {
		return false, err
	}
	if err := apply.Add(ctx, plan, want.StatefulSet, r.statefulSets(s, o)); err != nil {
		return false, err
	}
	return !plan.Empty(), plan.Execute(ctx)
}

// prune deletes the child objects that are no longer wanted. The cache does not hold an
// object that lost its labels, so after a change the API server is asked.
func (r *Reconciler) prune(ctx context.Context, s scope, want *resources.Objects, changed bool) error {
	reader := client.Reader(r.Client)
	if changed {
		reader = r.Live
	}
	if want.RoleBinding == nil {
		if err := apply.Delete[rbacv1.RoleBinding](ctx, reader, r.Client, s.headscale, s.headscale.Name); err != nil {
			return err
		}
	}
	if want.Role == nil {
		if err := apply.Delete[rbacv1.Role](ctx, reader, r.Client, s.headscale, s.headscale.Name); err != nil {
			return err
		}
	}
	if want.MetricsService == nil {
		return apply.Delete[corev1.Service](ctx, reader, r.Client, s.headscale, resources.MetricsServiceName(s.headscale))
	}
	return nil
}
