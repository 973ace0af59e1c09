package resources

import (
	appsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1 "k8s.io/client-go/applyconfigurations/core/v1"
	rbacv1 "k8s.io/client-go/applyconfigurations/rbac/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Options is what the operator's own settings add to a Headscale.
type Options struct {
	// ManagerImage is the image of the API Key Manager where the resource names none.
	ManagerImage string
	// References is a digest of the versions of what the resource refers to, or "" where
	// it refers to nothing. Another digest makes a new pod.
	References string
}

// Objects are all that a Headscale wants, in the order in which they are needed.
// One that is nil must not exist.
type Objects struct {
	// ServiceAccount is the pod's identity.
	ServiceAccount *corev1.ServiceAccountApplyConfiguration
	// Role is what the API Key Manager may do; nil where there is none.
	Role *rbacv1.RoleApplyConfiguration
	// RoleBinding gives Role to ServiceAccount; nil where there is none.
	RoleBinding *rbacv1.RoleBindingApplyConfiguration
	// ConfigMap holds Headscale's completed config.yaml.
	ConfigMap *corev1.ConfigMapApplyConfiguration
	// Service is for Headscale's clients.
	Service *corev1.ServiceApplyConfiguration
	// MetricsService is for what collects metrics, Headscale's and the API Key Manager's;
	// nil where there are neither.
	MetricsService *corev1.ServiceApplyConfiguration
	// StatefulSet runs the pod.
	StatefulSet *appsv1.StatefulSetApplyConfiguration
	// Warnings are sentences about what works and should be otherwise.
	Warnings []string
}

// Build returns the objects of a Headscale, or an *InvalidError that says which
// field of it the user must change.
func Build(headscale *v1beta1.Headscale, options Options) (*Objects, error) {
	if err := checkImage(&headscale.Spec); err != nil {
		return nil, err
	}
	config, err := completeConfig(&headscale.Spec)
	if err != nil {
		return nil, err
	}
	plan, err := layoutOf(&config, headscale.Spec.APIKey.Managed())
	if err != nil {
		return nil, err
	}
	text, err := renderConfig(&config)
	if err != nil {
		return nil, err
	}
	warnings, err := plainText(&config)
	if err != nil {
		return nil, err
	}
	unknown, err := UnknownConfigKeys(headscale)
	if err != nil {
		return nil, err
	}
	if unknown != "" {
		warnings = append(warnings, unknown)
	}
	objects := &Objects{
		ServiceAccount: serviceAccount(headscale),
		ConfigMap:      configMap(headscale, text),
		Service:        service(headscale, &plan),
		MetricsService: metricsService(headscale, &plan),
		Warnings:       warnings,
	}
	pod, err := completePod(headscale, &plan, text, options)
	if err != nil {
		return nil, err
	}
	if headscale.Spec.APIKey.Managed() {
		objects.Role, objects.RoleBinding = role(headscale), roleBinding(headscale)
	}
	objects.StatefulSet = statefulSet(headscale, pod)
	return objects, nil
}

// completePod is the pod with all that belongs into it.
func completePod(headscale *v1beta1.Headscale, plan *layout, config string, options Options) (*corev1.PodTemplateSpecApplyConfiguration, error) {
	pod := podTemplate(headscale, plan, config)
	addReferences(pod, headscale, options.References)
	if headscale.Spec.APIKey.Managed() {
		if err := addSidecar(pod, headscale, plan, options.ManagerImage); err != nil {
			return nil, err
		}
	}
	return pod, addToPod(pod, headscale, plan)
}

// MetricsServiceName is the name of the Service for the metrics of a Headscale,
// whether or not there is one.
func MetricsServiceName(headscale *v1beta1.Headscale) string {
	return metricsName(headscale)
}
