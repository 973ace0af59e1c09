package v1beta1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KindPreAuthKey is the kind of a pre-auth key of a Headscale.
const KindPreAuthKey = "HeadscalePreAuthKey"

// Whether a pre-auth key is replaced by another one.
const (
	// ReissueAlways replaces it before it expires, and when it cannot be used any more.
	ReissueAlways ReissuePolicy = "Always"
	// ReissueNever does not replace it, even when it was used or has expired.
	ReissueNever ReissuePolicy = "Never"
)

// ReissuePolicy says whether a pre-auth key is replaced by another one.
//
// +kubebuilder:validation:MaxLength=16
// +kubebuilder:validation:XValidation:rule="self == 'Always' || self == 'Never'",message="reissue must be Always or Never"
type ReissuePolicy string

// PreAuthKeyLifetime is how long a pre-auth key is valid, as a Duration. It has a minimum, because the
// operator queries Headscale only twice a minute.
//
// +kubebuilder:validation:MaxLength=48
// +kubebuilder:validation:XValidation:rule="size(self) > 0 && self.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$')",message="must be a duration in hours, minutes and seconds, such as 1h or 1h30m; there is no unit for days: write 90 days as 2160h"
// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$') || size(self) == 0 || duration(self) >= duration('10s')",message="must be at least 10s: the operator replaces the key in the Secret before it expires, so a key that never expires is not needed"
type PreAuthKeyLifetime string

// Tag is a tag of nodes, such as tag:web.
//
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule="self.startsWith('tag:')",message="must begin with tag:, as in tag:web"
// +kubebuilder:validation:XValidation:rule="!self.startsWith('tag:') || self.matches('^tag:[a-zA-Z][a-zA-Z0-9-]*$')",message="must be tag: and a name of letters, digits and '-' that begins with a letter, as in tag:web"
type Tag string

// HeadscalePreAuthKeySpec defines the desired state of a HeadscalePreAuthKey. (Its fields are in
// camel case, unlike those of a Headscale.)
//
// +kubebuilder:validation:XValidation:rule="has(self.headscaleNamespace) == has(oldSelf.headscaleNamespace) && (!has(self.headscaleNamespace) || self.headscaleNamespace == oldSelf.headscaleNamespace)",message="headscaleNamespace cannot be changed: the key exists in the Headscale that it named; delete the HeadscalePreAuthKey and create another one",fieldPath=".headscaleNamespace",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="has(self.secretName) == has(oldSelf.secretName) && (!has(self.secretName) || self.secretName == oldSelf.secretName)",message="secretName cannot be changed, because others read the key there: delete the HeadscalePreAuthKey and create another one",fieldPath=".secretName",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="!(has(self.headscaleUserRef) && has(self.userId))",message="headscaleUserRef and userId are mutually exclusive: set one of them, or neither for a key with tags only"
// +kubebuilder:validation:XValidation:rule="has(self.headscaleUserRef) || has(self.userId) || (has(self.tags) && size(self.tags) > 0)",message="a key belongs to a user or has tags: set headscaleUserRef or userId, or, with Headscale 0.28 and later, tags"
// +kubebuilder:validation:XValidation:rule="!has(self.rotationBuffer) || !self.rotationBuffer.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$') || size(self.rotationBuffer) == 0 || !self.expiration.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$') || size(self.expiration) == 0 || duration(self.rotationBuffer) < duration(self.expiration)",message="rotationBuffer must be shorter than expiration: a key is replaced that long before it expires",fieldPath=".rotationBuffer"
type HeadscalePreAuthKeySpec struct {
	// Name of the Headscale that has the key.
	// +required
	// +kubebuilder:validation:MaxLength=52
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="headscaleRef must be the name of a Headscale: lower-case letters, digits and '-', beginning with a letter"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="headscaleRef cannot be changed: the key exists in the Headscale that it named; delete the HeadscalePreAuthKey and create another one"
	HeadscaleRef string `json:"headscaleRef"`

	// Namespace of the Headscale. Left out: that of the HeadscalePreAuthKey. A Headscale in another
	// namespace must allow it in its spec.access.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="headscaleNamespace must be the name of a namespace: lower-case letters, digits and '-', such as headscale"
	HeadscaleNamespace string `json:"headscaleNamespace,omitempty"`

	// Name of a HeadscaleUser in this namespace, which owns the nodes that register with the key.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="headscaleUserRef must be the name of a HeadscaleUser: lower-case letters, digits, '-' and '.', such as alice"
	HeadscaleUserRef string `json:"headscaleUserRef,omitempty"`

	// Id of a user in Headscale, instead of headscaleUserRef. Allowed only in the Headscale's own namespace.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= 1",message="userId must be the id of a user, 1 or more"
	UserID *int64 `json:"userId,omitempty"`

	// Tags of nodes that register with the key. With tags, a key needs no user, from Headscale 0.28 on.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	Tags []Tag `json:"tags,omitempty"`

	// Whether any number of nodes may register with the key. If false, one node may, and the key is
	// replaced afterwards.
	// +optional
	// +kubebuilder:default=false
	Reusable bool `json:"reusable"`

	// Whether Headscale removes nodes that register with the key some time after they disconnect.
	// +optional
	// +kubebuilder:default=false
	Ephemeral bool `json:"ephemeral"`

	// How long a key is valid, in hours, minutes and seconds, at least 10s.
	// +optional
	// +kubebuilder:default="1h"
	Expiration PreAuthKeyLifetime `json:"expiration"`

	// How long before its expiration a key is replaced. Left out: a third of the expiration.
	// +optional
	RotationBuffer Duration `json:"rotationBuffer,omitempty"`

	// How long a replaced key stays valid.
	// +optional
	// +kubebuilder:default="0s"
	RevocationDelay Delay `json:"revocationDelay"`

	// Always: the key is replaced before it expires, and after it was used up or has expired.
	// Never: it is not replaced.
	// +optional
	// +kubebuilder:default=Always
	Reissue ReissuePolicy `json:"reissue"`

	// Name of the Secret in this namespace that holds the key. Left out: that of the
	// HeadscalePreAuthKey.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="secretName must be the name of a Secret: lower-case letters, digits, '-' and '.', such as web-key"
	SecretName string `json:"secretName,omitempty"`

	// Entry of the Secret's data that holds the key.
	// +optional
	// +kubebuilder:default=key
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="secretKey must be the name of an entry of a Secret: letters, digits, '-', '_' and '.', such as key"
	SecretKey string `json:"secretKey"`

	// Additional labels and annotations of the Secret.
	// +optional
	SecretTemplate SecretTemplate `json:"secretTemplate,omitzero"`

	// What happens when the HeadscalePreAuthKey is deleted. Delete: the key is expired and its
	// Secret is deleted. Retain: both stay.
	// +optional
	// +kubebuilder:default=Delete
	DeletionPolicy DeletionPolicy `json:"deletionPolicy"`
}

// SecretTemplate has additional metadata of a Secret.
type SecretTemplate struct {
	// Labels of the Secret.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(name, size(name) <= 317 && name.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="must have names of labels, such as app or example.com/app"
	// +kubebuilder:validation:XValidation:rule="!self.exists(name, name in ['app.kubernetes.io/managed-by', 'app.kubernetes.io/component'])",message="must not have app.kubernetes.io/managed-by or app.kubernetes.io/component: the operator identifies its Secrets by these"
	Labels map[string]LabelValue `json:"labels,omitempty"`

	// Annotations of the Secret.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(name, size(name) <= 317 && name.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="must have names of annotations, such as note or example.com/note"
	// +kubebuilder:validation:XValidation:rule="!self.exists(name, name.startsWith('pre-auth-key.headscale.infrado.cloud/') || name.startsWith('kubectl.kubernetes.io/'))",message="must not have annotations of pre-auth-key.headscale.infrado.cloud or kubectl.kubernetes.io: these are reserved for the operator and kubectl"
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`
}

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",message="must be the value of a label: letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
type LabelValue string

// AnnotationValue is the value of an annotation.
//
// +kubebuilder:validation:MaxLength=1024
type AnnotationValue string

// HeadscalePreAuthKeyStatus is the observed state of a HeadscalePreAuthKey. The text of the key
// is in the Secret alone.
type HeadscalePreAuthKeyStatus struct {
	// Headscale's id of the key in the Secret.
	// +optional
	KeyID uint64 `json:"keyId,omitempty"`

	// When the key in the Secret expires.
	// +optional
	Expiration *metav1.Time `json:"expiration,omitempty"`

	// When the key is due to be replaced.
	// +optional
	NextRotation *metav1.Time `json:"nextRotation,omitempty"`

	// How many keys of this HeadscalePreAuthKey were used up.
	// +optional
	Used int64 `json:"used,omitempty"`

	// Whether the key was used or has expired, and is not to be replaced (reissue: Never).
	// +optional
	Over bool `json:"over,omitempty"`

	// Generation of the resource that the operator observed last.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions: Ready; Reconciling and Stalled are there only while they are true.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// HeadscalePreAuthKey is a pre-auth key in a Secret, with which nodes register with a Headscale.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hspak;hspre
// +kubebuilder:printcolumn:name="Headscale",type=string,JSONPath=`.spec.headscaleRef`
// +kubebuilder:printcolumn:name="User",type=string,JSONPath=`.spec.headscaleUserRef`
// +kubebuilder:printcolumn:name="Reusable",type=boolean,JSONPath=`.spec.reusable`
// +kubebuilder:printcolumn:name="Ephemeral",type=boolean,JSONPath=`.spec.ephemeral`
// +kubebuilder:printcolumn:name="Used",type=integer,JSONPath=`.status.used`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expiration`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type HeadscalePreAuthKey struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec HeadscalePreAuthKeySpec `json:"spec"`
	// Observed state of the HeadscalePreAuthKey. Its observedGeneration is -1 until the operator has seen it.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status HeadscalePreAuthKeyStatus `json:"status,omitzero"`
}

// HeadscalePreAuthKeyList is a list of HeadscalePreAuthKeys.
//
// +kubebuilder:object:root=true
type HeadscalePreAuthKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []HeadscalePreAuthKey `json:"items"`
}

// FinalizerPreAuthKey keeps a HeadscalePreAuthKey until its key is expired. It is there only once
// there may be a key, and never with the deletion policy Retain.
const FinalizerPreAuthKey = GroupName + "/pre-auth-key"

// ComponentPreAuthKey is the value of LabelComponent on the Secret of a pre-auth key. A Secret
// without it, or of another HeadscalePreAuthKey, belongs to someone else and is never written to.
const ComponentPreAuthKey = "pre-auth-key"

// Annotations on the Secret of a pre-auth key. Those of the API key's Secret of the same names
// mean the same.
const (
	// PreAuthKeyAnnotationPrefix begins the name of each.
	PreAuthKeyAnnotationPrefix = "pre-auth-key.headscale.infrado.cloud/"

	// AnnotationPreAuthKeyObject is the name of the HeadscalePreAuthKey that the Secret belongs to.
	AnnotationPreAuthKeyObject = PreAuthKeyAnnotationPrefix + "object"
	// AnnotationPreAuthKeyEntry is the entry of the data in which the key is.
	AnnotationPreAuthKeyEntry = PreAuthKeyAnnotationPrefix + "entry"
	// AnnotationPreAuthKeyID identifies the key. It is not secret: the public part of its
	// text, or, up to Headscale 0.27, a digest of it.
	AnnotationPreAuthKeyID = PreAuthKeyAnnotationPrefix + "key-id"
	// AnnotationPreAuthKeyDigest is the SHA-256 digest of the key.
	AnnotationPreAuthKeyDigest = PreAuthKeyAnnotationPrefix + "key-digest"
	// AnnotationPreAuthKeyExpiration is when the key expires.
	AnnotationPreAuthKeyExpiration = PreAuthKeyAnnotationPrefix + "expiration"
	// AnnotationPreAuthKeyCreatedAt is when the key was created.
	AnnotationPreAuthKeyCreatedAt = PreAuthKeyAnnotationPrefix + "created-at"
	// AnnotationPreAuthKeyPending lists the keys that were requested and may still appear.
	AnnotationPreAuthKeyPending = PreAuthKeyAnnotationPrefix + "pending-expiration"
	// AnnotationPreAuthKeyRetiring lists the keys that were replaced and are not expired yet.
	AnnotationPreAuthKeyRetiring = PreAuthKeyAnnotationPrefix + "retiring"
	// AnnotationPreAuthKeyRequested requests another key now, with any value not handled before.
	AnnotationPreAuthKeyRequested = PreAuthKeyAnnotationPrefix + "rotate-requested-at"
	// AnnotationPreAuthKeyHandled echoes the last request that was handled.
	AnnotationPreAuthKeyHandled = PreAuthKeyAnnotationPrefix + "rotate-handled"
	// AnnotationPreAuthKeyTemplate lists the labels and annotations of secretTemplate that the
	// Secret was given, which are removed when they are left out of it: "label/name" and
	// "annotation/name", with commas between them.
	AnnotationPreAuthKeyTemplate = PreAuthKeyAnnotationPrefix + "template"
)

// IsPreAuthKeySecret reports whether a Secret with these labels is one of a pre-auth key.
func IsPreAuthKeySecret(labels map[string]string) bool {
	return labels[LabelManagedBy] == ManagedBy && labels[LabelComponent] == ComponentPreAuthKey
}

// Retained reports whether the key and its Secret stay when the HeadscalePreAuthKey is deleted.
func (k *HeadscalePreAuthKey) Retained() bool { return k.Spec.DeletionPolicy == DeletionPolicyRetain }

// HeadscaleNamespace is the namespace of the Headscale that has the key.
func (k *HeadscalePreAuthKey) HeadscaleNamespace() string {
	if k.Spec.HeadscaleNamespace == "" {
		return k.Namespace
	}
	return k.Spec.HeadscaleNamespace
}

// IsOver reports whether the key was used or has expired, and is not to be replaced.
func (k *HeadscalePreAuthKey) IsOver() bool { return k.Spec.Reissue == ReissueNever && k.Status.Over }

// EffectiveSecretName is the name of the Secret that holds the key.
func (k *HeadscalePreAuthKey) EffectiveSecretName() string {
	if k.Spec.SecretName == "" {
		return k.Name
	}
	return k.Spec.SecretName
}

// bufferPart is the part of the expiration that the default rotationBuffer is.
const bufferPart = 3

// Lifetimes are how long a key is valid, how long before that it is replaced, and how long it
// stays valid after it was replaced; or an error that says what is wrong with one of them.
func (s *HeadscalePreAuthKeySpec) Lifetimes() (expiration, buffer, delay time.Duration, err error) {
	if expiration, err = Duration(s.Expiration).Parse(); err != nil {
		return 0, 0, 0, err
	}
	buffer = expiration / bufferPart
	if s.RotationBuffer != "" {
		if buffer, err = s.RotationBuffer.Parse(); err != nil {
			return 0, 0, 0, err
		}
	}
	delay, err = s.RevocationDelay.Parse()
	return expiration, buffer, delay, err
}
