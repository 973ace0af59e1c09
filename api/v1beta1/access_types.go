package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AccessRule gives other namespaces access to a Headscale.
type AccessRule struct {
	// The namespaces that the rule applies to.
	// +optional
	Namespaces AccessNamespaces `json:"namespaces,omitzero"`

	// Whether these namespaces may have HeadscaleUsers.
	// +optional
	Users bool `json:"users,omitempty"`

	// Tags that pre-auth keys of these namespaces may have. An entry that ends with '*' allows all
	// longer tags with that prefix.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Tags []TagPattern `json:"tags,omitempty"`
}

// AccessNamespaces selects namespaces: those that are named, and those whose labels match. If
// both are left out or empty, none is selected.
type AccessNamespaces struct {
	// Names of namespaces.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",message="namespaces.names must be names of namespaces: lower-case letters, digits and '-', such as team-a; use namespaces.selector for several"
	Names []string `json:"names,omitempty"`

	// Labels of namespaces.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// TagPattern is a tag such as tag:web, or the beginning of tags, such as tag:web-*.
//
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule="self.matches('^tag:([a-zA-Z][a-zA-Z0-9-]*)?[*]?$') && self != 'tag:'",message="tags must be tags such as tag:web, or the beginning of tags, such as tag:web-*"
type TagPattern string
