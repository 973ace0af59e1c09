package resources

import (
	corev1 "k8s.io/client-go/applyconfigurations/core/v1"
	rbacv1 "k8s.io/client-go/applyconfigurations/rbac/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// serviceAccount is the identity of the pod. It exists whether or not there is a
// sidecar, so that the pod never runs under an account that others gave rights to.
func serviceAccount(headscale *v1beta1.Headscale) *corev1.ServiceAccountApplyConfiguration {
	return corev1.ServiceAccount(headscale.Name, headscale.Namespace).
		WithLabels(labels(headscale, componentServer)).
		WithOwnerReferences(owner(headscale)).
		WithAutomountServiceAccountToken(false)
}

// role is all that the sidecar may do: create a Secret, and update the one that holds the
// key, unless that is somebody else's. (A request to create cannot be limited to a name.)
func role(headscale *v1beta1.Headscale, options Options) *rbacv1.RoleApplyConfiguration {
	role := rbacv1.Role(headscale.Name, headscale.Namespace).
		WithLabels(labels(headscale, componentManager)).
		WithOwnerReferences(owner(headscale)).
		WithRules(rbacv1.PolicyRule().WithAPIGroups("").WithResources("secrets").WithVerbs("create"))
	if options.SecretIsForeign {
		return role
	}
	return role.WithRules(rbacv1.PolicyRule().WithAPIGroups("").WithResources("secrets").
		WithResourceNames(headscale.Spec.APIKey.EffectiveSecretName()).
		WithVerbs("get", "patch", "update", "watch"))
}

// roleBinding gives the role to the pod's ServiceAccount.
func roleBinding(headscale *v1beta1.Headscale) *rbacv1.RoleBindingApplyConfiguration {
	return rbacv1.RoleBinding(headscale.Name, headscale.Namespace).
		WithLabels(labels(headscale, componentManager)).
		WithOwnerReferences(owner(headscale)).
		WithRoleRef(rbacv1.RoleRef().
			WithAPIGroup("rbac.authorization.k8s.io").WithKind("Role").WithName(headscale.Name)).
		WithSubjects(rbacv1.Subject().
			WithKind("ServiceAccount").WithName(headscale.Name).WithNamespace(headscale.Namespace))
}
