package v1beta1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// HeadscaleSpec defines the desired state of a Headscale.
//
// +kubebuilder:validation:XValidation:rule="!has(self.backup) || !has(self.config.database) || !has(self.config.database.type) || self.config.database.type != 'postgres'",message="backup is for SQLite only: back up PostgreSQL where it runs, such as with CloudNativePG or pgBackRest",fieldPath=".backup"
type HeadscaleSpec struct {
	// Headscale's release, which is also its image tag, such as v0.29.3.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^v?[0-9]{1,4}[.][0-9]{1,4}[.][0-9]{1,4}(-[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?)?$')",message="version must be a release of Headscale in full, such as v0.29.3; a moving tag such as latest is not accepted, because an upgrade must be a decision"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^v?0[.]0*([0-9]|1[0-9]|2[0-5])[.]')",message="version must be v0.26.0 or newer: the admin API of older releases is not supported"
	Version string `json:"version"`

	// Image of Headscale without its tag, which is the version. An image with a tag
	// or a digest of its own (headscale/headscale@sha256:…) is taken as it is.
	// +optional
	// +kubebuilder:default=headscale/headscale
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^\\\\s]+$')",message="image must be an image reference without spaces, such as headscale/headscale"
	Image string `json:"image,omitempty"`

	// Number of pods: 0 stops Headscale, 1 runs it.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:XValidation:rule="self == 0 || self == 1",message="replicas must be 0 or 1: Headscale is one process with one database, two would not know of each other"
	Replicas *int32 `json:"replicas,omitempty"`

	// Headscale's own config.yaml. What is left out and is needed for a start is
	// filled in by the operator.
	// +required
	Config HeadscaleConfig `json:"config"`

	// The volume for the database and the private keys.
	// +optional
	// +kubebuilder:default={}
	PersistentVolumeClaim PersistentVolumeClaimSpec `json:"persistent_volume_claim,omitzero"`

	// Secrets with the credentials for pulling the images.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(secret, has(secret.name) && secret.name != '')",message="image_pull_secrets must have a name in each entry, such as {name: registry}"
	ImagePullSecrets []corev1.LocalObjectReference `json:"image_pull_secrets,omitempty"`

	// The API key that the API Key Manager keeps in a Secret.
	// +optional
	// +kubebuilder:default={auto_manage: true, secret_name: "headscale-api-key", expiration: "2160h", rotation_buffer: "1920h", revocation_delay: "0s"}
	APIKey APIKeySpec `json:"api_key,omitzero"`

	// Secrets that Headscale needs, by name.
	// +optional
	Secrets SecretsSpec `json:"secrets,omitzero"`

	// Files that Headscale reads, from ConfigMaps or Secrets, by name.
	// +optional
	Files FilesSpec `json:"files,omitzero"`

	// Continuous backup of the SQLite database, and its restore into an empty volume.
	// +optional
	Backup *BackupSpec `json:"backup,omitempty"`

	// The Service for Headscale's clients.
	// +optional
	Service ServiceSpec `json:"service,omitzero"`

	// What is added to Headscale's pod.
	// +optional
	Pod PodSpec `json:"pod,omitzero"`

	// Whether a change is checked by a preflight before it replaces a pod that is ready.
	// WhenPossible: a change whose preflight is inconclusive for ten minutes is applied anyway.
	// Always: it waits. Never: it is applied without a preflight.
	// +optional
	// +kubebuilder:default=WhenPossible
	// +kubebuilder:validation:XValidation:rule="self in ['Always', 'WhenPossible', 'Never']",message="preflight must be Always, WhenPossible or Never"
	Preflight PreflightMode `json:"preflight,omitempty"`

	// What other namespaces may do with this Headscale. Its own needs no entry.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Access []AccessRule `json:"access,omitempty"`
}

// ServiceSpec describes the Service for Headscale's clients.
type ServiceSpec struct {
	// Protocol (Kubernetes' appProtocol) of the port http, for meshes and gateways; tcp has
	// them pass on everything as it is. Left out: none, so that they go by the port's name.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')",message="service.app_protocol must be a protocol's name, such as tcp, http or kubernetes.io/ws"
	AppProtocol string `json:"app_protocol,omitempty"`
}

// PersistentVolumeClaimSpec describes the volume for Headscale's data.
type PersistentVolumeClaimSpec struct {
	// Size of the volume.
	// +optional
	// +kubebuilder:default="1Gi"
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))",message="persistent_volume_claim.size must be a positive amount, such as 1Gi"
	Size resource.Quantity `json:"size,omitzero"`

	// StorageClass of the volume. Left out: the cluster's default.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="persistent_volume_claim.storage_class_name must be the name of a StorageClass: lower-case letters, digits, '-' and '.', such as standard"
	StorageClassName *string `json:"storage_class_name,omitempty"`
}

// APIKeySpec describes the API key and the sidecar that manages it.
//
// The rules below compare durations only where each of them can be read; where one
// cannot, its own rule says so. The implied buffer is reckoned in whole seconds, as
// DefaultRotationBuffer cuts it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.expiration) || !has(self.rotation_buffer) || ![self.expiration, self.rotation_buffer].all(d, size(d) > 0 && d.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$')) || duration(self.rotation_buffer) < duration(self.expiration)",message="rotation_buffer must be less than expiration: a key is replaced that long before it expires; set both, or leave rotation_buffer out (null) to have 8/9 of the expiration",fieldPath=".rotation_buffer"
// +kubebuilder:validation:XValidation:rule="!has(self.revocation_delay) || !has(self.rotation_buffer) || ![self.revocation_delay, self.rotation_buffer].all(d, size(d) > 0 && d.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$')) || duration(self.revocation_delay) == duration('0s') || duration(self.revocation_delay) < duration(self.rotation_buffer)",message="revocation_delay must be less than rotation_buffer: the old key expires by itself that long after it was replaced",fieldPath=".revocation_delay"
// +kubebuilder:validation:XValidation:rule="!has(self.revocation_delay) || has(self.rotation_buffer) || !has(self.expiration) || ![self.revocation_delay, self.expiration].all(d, size(d) > 0 && d.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$')) || duration(self.revocation_delay) == duration('0s') || duration(self.revocation_delay).getSeconds() < duration(self.expiration).getSeconds() * 8 / 9",message="revocation_delay must be less than rotation_buffer, which is 8/9 of the expiration where it is left out",fieldPath=".revocation_delay"
type APIKeySpec struct {
	// Whether the API Key Manager runs next to Headscale. When it is turned off, the
	// Secret and its key stay as they are.
	// +optional
	// +kubebuilder:default=true
	AutoManage *bool `json:"auto_manage,omitempty"`

	// Name of the Secret that holds the key.
	// +optional
	// +kubebuilder:default=headscale-api-key
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="secret_name must be a name that a Secret can have: lower-case letters, digits, '-' and '.', beginning and ending with a letter or a digit, such as headscale-api-key"
	SecretName string `json:"secret_name,omitempty"`

	// How long a new key is valid, in hours, minutes and seconds.
	// +optional
	// +kubebuilder:default="2160h"
	Expiration Duration `json:"expiration,omitempty"`

	// How long before its expiration a key is replaced, in hours, minutes and
	// seconds; less than expiration. Left out: 8/9 of the expiration.
	// +optional
	RotationBuffer Duration `json:"rotation_buffer,omitempty"`

	// How long the old key stays valid after a new one was stored, in hours, minutes
	// and seconds; less than rotation_buffer. 0s: the old key is expired at once.
	// +optional
	// +kubebuilder:default="0s"
	RevocationDelay Delay `json:"revocation_delay,omitempty"`

	// Image of the API Key Manager. Left out: the one that belongs to this operator.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^\\\\s]+$')",message="manager_image must be an image reference without spaces, such as headscale-operator/apikey-manager:v1"
	ManagerImage string `json:"manager_image,omitempty"`
}

// APIKeyStatus describes the key that the Secret holds now.
type APIKeyStatus struct {
	// Name of the Secret that holds the key.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secret_name,omitempty"`
	// Public part of the key, by which Headscale lists it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	KeyPrefix string `json:"key_prefix,omitempty"`
	// When the key expires.
	// +optional
	Expiration *metav1.Time `json:"expiration,omitempty"`
	// When the key will be replaced.
	// +optional
	NextRotation *metav1.Time `json:"next_rotation,omitempty"`
	// Last value of the annotation rotate-requested-at that was forwarded to the
	// Secret. A request is forwarded once.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	LastRotationRequest string `json:"last_rotation_request,omitempty"`
}

// HeadscaleStatus is the observed state of a Headscale.
type HeadscaleStatus struct {
	// Generation of the resource that the operator observed last. (In camel case, unlike
	// the fields of the spec, because tools such as Flux and Argo CD look for it.)
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Version that last ran with the present database and answered.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Version string `json:"version,omitempty"`

	// Conditions: Ready, Available, APIKeyReady and Progressing; BackedUp with a backup;
	// Reconciling and Stalled are there only while they are true.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Reason of the last warning, until all is well again.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Warning string `json:"warning,omitempty"`

	// Generation of the resource whose objects were applied last: the pod runs it, or is being
	// replaced to run it. It is older than observedGeneration while a change is held up.
	// +optional
	AppliedGeneration int64 `json:"applied_generation,omitempty"`

	// The last change that was checked by a preflight before it replaced the pod, or that is held up.
	// +optional
	Preflight *PreflightStatus `json:"preflight,omitempty"`

	// The incarnation of the database that is backed up, while there is a backup.
	// +optional
	Backup *BackupStatus `json:"backup,omitempty"`

	// Whether the operator has joined HeadscalePolicies to its policy. Once the last of them is deleted,
	// the event PolicyLeft says so.
	// +optional
	HasPolicies bool `json:"has_policies,omitempty"`

	// The last verification of that backup.
	// +optional
	BackupVerification *BackupVerification `json:"backup_verification,omitempty"`

	// The API key, while it is managed.
	// +optional
	APIKey *APIKeyStatus `json:"api_key,omitempty"`
}

// Headscale runs a Headscale server and manages an admin API key for it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hs
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.spec.version`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Secret",type=string,JSONPath=`.status.api_key.secret_name`
// +kubebuilder:printcolumn:name="Key expires",type=string,JSONPath=`.status.api_key.expiration`
// +kubebuilder:printcolumn:name="Next rotation",type=string,JSONPath=`.status.api_key.next_rotation`,priority=1
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.spec.config.server_url`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 52",message="metadata.name must be at most 52 lower-case letters, digits and '-', beginning with a letter: the names and labels of the pod and the Services are made from it"
type Headscale struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec HeadscaleSpec `json:"spec"`
	// Observed state of the Headscale. Its observedGeneration is -1 until the operator has seen it.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status HeadscaleStatus `json:"status,omitzero"`

	// tooLarge is what TooLarge says, where the most of the Headscale was dropped.
	tooLarge string `json:"-"`
}

// HeadscaleList is a list of Headscales.
//
// +kubebuilder:object:root=true
type HeadscaleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []Headscale `json:"items"`
}
