package v1beta1

import (
	"cmp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// KindPolicy is the kind of a policy of a Headscale, or of a part of one.
const KindPolicy = "HeadscalePolicy"

// ConditionContested is true from the moment at which the operator stops reverting a policy that somebody else
// changes again and again, until Headscale has that of the HeadscalePolicies again.
const ConditionContested = "Contested"

// HeadscalePolicySpec defines the desired state of a HeadscalePolicy.
//
// +kubebuilder:validation:XValidation:rule="has(self.policy) != has(self.hujson)",message="exactly one of policy and hujson must be set"
type HeadscalePolicySpec struct {
	// Name of the Headscale that the policy is for, in the namespace of the HeadscalePolicy.
	// +required
	// +kubebuilder:validation:MaxLength=52
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="headscaleRef must be the name of a Headscale: lower-case letters, digits and '-', beginning with a letter"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="headscaleRef cannot be changed: delete the HeadscalePolicy and create another one"
	HeadscaleRef string `json:"headscaleRef"`

	// Where the lists of this HeadscalePolicy stand among those of the others of the same
	// Headscale: lower ones come first. Of the same order, the name decides.
	// +optional
	// +kubebuilder:default=100
	// +kubebuilder:validation:XValidation:rule="self >= 0 && self <= 1000000",message="order must be between 0 and 1000000"
	Order *int32 `json:"order,omitempty"`

	// Headscale's own sections, such as groups, tagOwners and acls. They are passed through as
	// they are.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=256
	Policy *runtime.RawExtension `json:"policy,omitempty"`

	// The same as a text, with comments.
	// +optional
	// +kubebuilder:validation:MaxLength=1048576
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[\\\\s]*([{][\\\\s]*[}])?[\\\\s]*$')",message="hujson must not be empty: an empty policy allows everything"
	// +kubebuilder:validation:XValidation:rule="self.matches('^[\\\\s]*([{/]|$)')",message="hujson must be HuJSON: it begins with '{', or with a comment. A policy in YAML is spec.policy"
	HuJSON string `json:"hujson,omitempty"`
}

// HeadscalePolicyStatus is the observed state of a HeadscalePolicy.
type HeadscalePolicyStatus struct {
	// When Headscale was first known to have this HeadscalePolicy as it was accepted last.
	// +optional
	AppliedAt *metav1.Time `json:"appliedAt,omitempty"`

	// SHA-256 of what this HeadscalePolicy contributed to the policy that Headscale accepted last,
	// by meaning: neither comments nor formatting count.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	AppliedDigest string `json:"appliedDigest,omitempty"`

	// SHA-256 of the whole policy that Headscale accepted last, by meaning.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	PolicyDigest string `json:"policyDigest,omitempty"`

	// SHA-256 of the whole policy that is being sent to Headscale. While it is there, it is not
	// known what became of it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SendingDigest string `json:"sendingDigest,omitempty"`

	// How many changes by hand were reverted in a row, each less than an hour after the one before.
	// +optional
	Corrections int32 `json:"corrections,omitempty"`

	// When the last change by hand was reverted.
	// +optional
	CorrectedAt *metav1.Time `json:"correctedAt,omitempty"`

	// Generation of the resource that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions: Ready; Reconciling, Stalled and Contested are there only while they are true.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// HeadscalePolicy is the policy of a Headscale, or a part of it: all HeadscalePolicies of a
// Headscale are joined to one.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=headscalepolicies,shortName=hspolicy
// +kubebuilder:printcolumn:name="Headscale",type=string,JSONPath=`.spec.headscaleRef`
// +kubebuilder:printcolumn:name="Order",type=integer,JSONPath=`.spec.order`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Applied",type=date,JSONPath=`.status.appliedAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type HeadscalePolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec HeadscalePolicySpec `json:"spec"`
	// Observed state of the HeadscalePolicy. Its observedGeneration is -1 until the operator has seen it.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status HeadscalePolicyStatus `json:"status,omitzero"`
}

// HeadscalePolicyList is a list of HeadscalePolicies.
//
// +kubebuilder:object:root=true
type HeadscalePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []HeadscalePolicy `json:"items"`
}

// DefaultOrder is spec.order where it is left out.
const DefaultOrder = 100

// EffectiveOrder is where the lists stand among those of others.
func (p *HeadscalePolicy) EffectiveOrder() int32 {
	if p.Spec.Order == nil {
		return DefaultOrder
	}
	return *p.Spec.Order
}

// ComparePolicies compares HeadscalePolicies by the order in which they are joined.
func ComparePolicies(a, b *HeadscalePolicy) int {
	return cmp.Or(cmp.Compare(a.EffectiveOrder(), b.EffectiveOrder()), strings.Compare(a.Name, b.Name))
}

// Text is what the object says, as HuJSON.
func (p *HeadscalePolicy) Text() string {
	if p.Spec.Policy != nil {
		return string(p.Spec.Policy.Raw)
	}
	return p.Spec.HuJSON
}
