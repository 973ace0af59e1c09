package resources

import (
	appsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1 "k8s.io/client-go/applyconfigurations/core/v1"
	rbacv1 "k8s.io/client-go/applyconfigurations/rbac/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/redact"
)

// maxIssuer is how much of an identity provider's address is shown, in bytes.
const maxIssuer = 200

// Options is what the operator's own settings add to a Headscale.
type Options struct {
	// ManagerImage is the image of the API Key Manager where the resource names none.
	ManagerImage string
	// References is a digest of the data of what the resource refers to, or "" where
	// it refers to nothing. Another digest makes a new pod.
	References string
	// SecretIsForeign is whether the API key Secret exists and is somebody else's. The Role
	// gives the API Key Manager no rights on it then.
	SecretIsForeign bool
	// IdentityIsForeign is the same of the Secret for Headscale's private keys.
	IdentityIsForeign bool
	// Backup is the incarnation of the database where the resource has a backup.
	Backup v1beta1.BackupStatus
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
	// BackupConfigMap holds Litestream's config and what becomes of an empty volume; nil where
	// there is no backup.
	BackupConfigMap *corev1.ConfigMapApplyConfiguration
	// Service is for Headscale's clients.
	Service *corev1.ServiceApplyConfiguration
	// MetricsService is for what collects metrics, Headscale's and the API Key Manager's;
	// nil where there are neither.
	MetricsService *corev1.ServiceApplyConfiguration
	// StatefulSet runs the pod.
	StatefulSet *appsv1.StatefulSetApplyConfiguration
	// OIDCIssuer is the identity provider of the config, sanitized, or "".
	OIDCIssuer string
	// PolicyInDatabase is whether Headscale reads its policy from its database. Where a variable
	// says so whose value comes from elsewhere, that is not known, and this is false.
	PolicyInDatabase bool
	// IdentityKeys are the entries of the Secret for Headscale's private keys that the API Key
	// Manager keeps there; none where it keeps none.
	IdentityKeys []string
	// Warnings are sentences about what works and should be otherwise.
	Warnings []string
}

// Draft is a Headscale with its config decoded, which is the largest part of it: a reconcile
// decodes it once.
type Draft struct {
	headscale *v1beta1.Headscale
	config    document
}

// NewDraft decodes the config of a Headscale, or returns an *InvalidError where the Headscale
// is too large for that.
func NewDraft(headscale *v1beta1.Headscale) (*Draft, error) {
	if tooLarge := headscale.TooLarge(); tooLarge != "" {
		return nil, invalid("pod", "with the metadata and everything else besides spec.config %s: write less", tooLarge)
	}
	config, err := headscale.Spec.Config.Document()
	if err != nil {
		return nil, invalid("config", "cannot be read: %v", err)
	}
	return &Draft{headscale: headscale, config: config}, nil
}

// Build returns the objects of a Headscale, or an *InvalidError that says which
// field of it the user must change.
func Build(headscale *v1beta1.Headscale, options Options) (*Objects, error) {
	draft, err := NewDraft(headscale)
	if err != nil {
		return nil, err
	}
	return draft.Build(options)
}

// Build returns the objects of the Headscale, or an *InvalidError that says which field of it
// the user must change. It completes the config, so it is the last that is done with a Draft.
func (d *Draft) Build(options Options) (*Objects, error) {
	headscale := d.headscale
	if err := checkImage(&headscale.Spec); err != nil {
		return nil, err
	}
	unknown := d.UnknownConfigKeys()
	known, err := completeConfig(d.config, &headscale.Spec)
	if err != nil {
		return nil, err
	}
	plan, err := layoutOf(d.config, &known, takenPorts(&headscale.Spec))
	if err != nil {
		return nil, err
	}
	text, err := renderConfig(d.config)
	if err != nil {
		return nil, err
	}
	warnings, err := plainText(d.config)
	if err != nil {
		return nil, err
	}
	if unknown != "" {
		warnings = append(warnings, unknown)
	}
	issuer, err := d.config.text("oidc.issuer")
	if err != nil {
		return nil, err
	}
	objects := &Objects{
		OIDCIssuer:       redact.Line(issuer, maxIssuer),
		PolicyInDatabase: PolicyInDatabase(d.config, headscale.Spec.Pod.Env),
		ServiceAccount:   serviceAccount(headscale),
		ConfigMap:        configMap(headscale, text),
		Service:          service(headscale, &plan),
		MetricsService:   metricsService(headscale, &plan),
		Warnings:         warnings,
	}
	pod, err := completePod(headscale, &plan, text, options)
	if err != nil {
		return nil, err
	}
	if err := addBackup(objects, pod, d.config, headscale, &plan, &options.Backup, options.ManagerImage); err != nil {
		return nil, err
	}
	if err := addIdentity(objects, pod.Spec, d.config, headscale, &plan, &options); err != nil {
		return nil, err
	}
	if headscale.Spec.APIKey.Managed() {
		objects.Role, objects.RoleBinding = addIdentityRights(role(headscale, options), headscale, objects, options), roleBinding(headscale)
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
