package headscale

import (
	"context"
	"errors"

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

// statefulSets notes the newest StatefulSet, and starts a preflight of a change that could stop Headscale.
func (r *Reconciler) statefulSets(s scope, o *observed, want *resources.Objects) apply.Spec[*appsv1ac.StatefulSetApplyConfiguration, *appsv1.StatefulSet] {
	return apply.Spec[*appsv1ac.StatefulSetApplyConfiguration, *appsv1.StatefulSet]{
		Extract:       extractStatefulSet,
		KeepImmutable: keepClaimTemplates,
		DryRun:        true,
		Gate: func(ctx context.Context, live, planned *appsv1.StatefulSet) error {
			return r.tryOut(ctx, s, o, want, live, planned)
		},
		OnObserve: func(live *appsv1.StatefulSet) { o.statefulSet = live },
		OnCreate: func(live *appsv1.StatefulSet) {
			status.Record(r.Events, s.headscale, status.Event{
				Action: status.ActionReconcile, Reason: v1beta1.EventCreated, Note: "Created StatefulSet " + live.Name,
			})
		},
	}
}

// clients are the ways to the API server that an apply takes.
func (r *Reconciler) clients() apply.Clients {
	return apply.Clients{Cache: r.Client, Live: r.Live, Writer: r.Client, Memory: &r.applied}
}

// apply brings the child objects to their desired state, and reports whether it wrote anything.
// A pod is made only of what is there: its StatefulSet waits for its ServiceAccount and its
// config.
func (r *Reconciler) apply(ctx context.Context, s scope, o *observed, want *resources.Objects) (changed bool, err error) {
	plan := apply.NewPlan(r.clients(), s.headscale, FieldManager)
	forConfig, forKey, forBackup := withPod(o.statefulSet, want)
	if o.statefulSet == nil && undecided(s.headscale.Status.Preflight) {
		// There may be a pod that was left without it.
		forConfig = []string{apply.Name(want.StatefulSet)}
	}
	forVersion := forConfig
	if o.statefulSet != nil && appliedVersion(o.statefulSet) != s.headscale.Spec.Version {
		forVersion = []string{apply.Name(want.StatefulSet)}
	}
	apply.Add(ctx, plan, want.ServiceAccount, serviceAccounts)
	apply.Add(ctx, plan, want.Role, roles, forKey...)
	apply.Add(ctx, plan, want.RoleBinding, roleBindings)
	apply.Add(ctx, plan, want.ConfigMap, configMaps, forVersion...)
	apply.Add(ctx, plan, want.BackupConfigMap, configMaps, forBackup...)
	apply.Add(ctx, plan, want.Service, services, forConfig...)
	apply.Add(ctx, plan, want.MetricsService, services, forConfig...)
	needed := []string{apply.Name(want.ServiceAccount), apply.Name(want.ConfigMap)}
	if want.BackupConfigMap != nil {
		needed = append(needed, apply.Name(want.BackupConfigMap))
	}
	apply.Add(ctx, plan, want.StatefulSet, r.statefulSets(s, o, want), needed...)
	if err = plan.Execute(ctx); err != nil && len(forBackup) > 0 && o.backup != nil {
		err = errors.Join(err, r.replan(ctx, s, o.backup))
	}
	return !plan.Empty(), err
}

// withPod says what waits for the StatefulSet: the objects that follow from the config where
// that changes, Litestream's config where the replica changes, and the rights where the key's
// Secret changes. The pod that runs would not fit
// them if the StatefulSet were refused. What only has to be put right does not wait.
func withPod(live *appsv1.StatefulSet, want *resources.Objects) (forConfig, forKey, forBackup []string) {
	if live == nil {
		return nil, nil, nil
	}
	pod := want.StatefulSet.Spec.Template
	if live.Spec.Template.Annotations[resources.AnnotationConfigHash] != pod.Annotations[resources.AnnotationConfigHash] {
		forConfig = []string{apply.Name(want.StatefulSet)}
	}
	if replica := live.Spec.Template.Annotations[resources.AnnotationBackupHash]; replica != "" && replica != pod.Annotations[resources.AnnotationBackupHash] {
		forBackup = []string{apply.Name(want.StatefulSet)}
	}
	for i := range live.Spec.Template.Spec.Containers {
		container := &live.Spec.Template.Spec.Containers[i]
		if container.Name == resources.ContainerManager && resources.SecretNameOf(container.Args) != resources.SecretNameOf(managerArgs(pod)) {
			forKey = []string{apply.Name(want.StatefulSet)}
		}
	}
	return forConfig, forKey, forBackup
}

// managerArgs are the arguments of the API Key Manager in a wanted pod; none without one.
func managerArgs(pod *corev1ac.PodTemplateSpecApplyConfiguration) []string {
	for i := range pod.Spec.Containers {
		if *pod.Spec.Containers[i].Name == resources.ContainerManager {
			return pod.Spec.Containers[i].Args
		}
	}
	return nil
}

// prune deletes the child objects that are no longer wanted. The cache does not hold an
// object that lost its labels, so after a change the API server is asked.
func (r *Reconciler) prune(ctx context.Context, s scope, want *resources.Objects, changed bool) error {
	reader := client.Reader(r.Client)
	if changed {
		reader = r.Live
	}
	var bindingErr, roleErr, serviceErr error
	if want.RoleBinding == nil {
		bindingErr = apply.Delete[rbacv1.RoleBinding](ctx, reader, r.Client, s.headscale, s.headscale.Name)
	}
	if want.Role == nil {
		roleErr = apply.Delete[rbacv1.Role](ctx, reader, r.Client, s.headscale, s.headscale.Name)
	}
	if want.MetricsService == nil {
		serviceErr = apply.Delete[corev1.Service](ctx, reader, r.Client, s.headscale, resources.MetricsServiceName(s.headscale))
	}
	return errors.Join(bindingErr, roleErr, serviceErr)
}
