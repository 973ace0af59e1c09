package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KindUser is the kind of a user of a Headscale.
const KindUser = "HeadscaleUser"

// What happens to something in Headscale when its object is deleted.
const (
	// DeletionPolicyDelete deletes it.
	DeletionPolicyDelete DeletionPolicy = "Delete"
	// DeletionPolicyRetain leaves it as it is.
	DeletionPolicyRetain DeletionPolicy = "Retain"
)

// DeletionPolicy says what happens to something in Headscale when its object is deleted.
//
// +kubebuilder:validation:MaxLength=16
// +kubebuilder:validation:XValidation:rule="self == 'Delete' || self == 'Retain'",message="deletionPolicy must be Delete or Retain"
type DeletionPolicy string

// HeadscaleUserSpec defines the desired state of a HeadscaleUser. (Its fields are in camel case,
// unlike those of a Headscale.)
//
// +kubebuilder:validation:XValidation:rule="has(self.headscaleNamespace) == has(oldSelf.headscaleNamespace) && (!has(self.headscaleNamespace) || self.headscaleNamespace == oldSelf.headscaleNamespace)",message="headscaleNamespace cannot be changed: the user exists in the Headscale that it named; delete the HeadscaleUser and create another one",fieldPath=".headscaleNamespace",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="has(self.displayName) == has(oldSelf.displayName) && (!has(self.displayName) || self.displayName == oldSelf.displayName)",message="displayName cannot be changed: Headscale sets it when it creates the user, and its API cannot change it later",fieldPath=".displayName",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="has(self.email) == has(oldSelf.email) && (!has(self.email) || self.email == oldSelf.email)",message="email cannot be changed: Headscale sets it when it creates the user, and its API cannot change it later",fieldPath=".email",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="has(self.pictureURL) == has(oldSelf.pictureURL) && (!has(self.pictureURL) || self.pictureURL == oldSelf.pictureURL)",message="pictureURL cannot be changed: Headscale sets it when it creates the user, and its API cannot change it later",fieldPath=".pictureURL",reason=FieldValueForbidden
type HeadscaleUserSpec struct {
	// Name of the Headscale that has the user.
	// +required
	// +kubebuilder:validation:MaxLength=52
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="headscaleRef must be the name of a Headscale: lower-case letters, digits and '-', beginning with a letter"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="headscaleRef cannot be changed: the user exists in the Headscale that it named; delete the HeadscaleUser and create another one"
	HeadscaleRef string `json:"headscaleRef"`

	// Namespace of the Headscale. Left out: that of the HeadscaleUser. A Headscale in another
	// namespace must allow it in its spec.access.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="headscaleNamespace must be the name of a namespace: lower-case letters, digits and '-', such as headscale"
	HeadscaleNamespace string `json:"headscaleNamespace,omitempty"`

	// Name of the user in Headscale. When it is changed, the user is renamed.
	// +required
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="size(self) >= 2",message="username must have at least 2 characters"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[\\\\p{Nd}]')",message="username must not begin with a digit"
	// +kubebuilder:validation:XValidation:rule="self.matches('^[\\\\p{L}\\\\p{Nd}._@-]*$')",message="username must be of letters, digits, '-', '.', '_' and at most one '@', such as alice or alice@example.com"
	// +kubebuilder:validation:XValidation:rule="!self.matches('@.*@')",message="username must have at most one '@'"
	// +kubebuilder:validation:XValidation:rule="self != '..'",message="username must not be '..', which names no user in the path of a request"
	Username string `json:"username"`

	// Name that is shown to people. It is set when the user is created, and cannot be changed.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.matches('[\\\\x00-\\\\x1f\\\\x7f]')",message="displayName must have no line breaks or other control characters"
	DisplayName string `json:"displayName,omitempty"`

	// E-mail address. It is set when the user is created, and cannot be changed.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^[^@\\\\s\\\\x00-\\\\x1f\\\\x7f]+@[^@\\\\s\\\\x00-\\\\x1f\\\\x7f]+$')",message="email must be an e-mail address, such as alice@example.com"
	Email string `json:"email,omitempty"`

	// Address of a picture. It is set when the user is created, and cannot be changed.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self == '' || (self.matches('^https?://[^\\\\s]+$') && isURL(self))",message="pictureURL must be the address of a picture, such as https://example.com/alice.png"
	PictureURL string `json:"pictureURL,omitempty"`

	// Whether the user is deleted from Headscale with the HeadscaleUser (Delete), or stays (Retain).
	// Left out: Delete, unless the user existed before: then Retain.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// HeadscaleUserStatus is the observed state of a HeadscaleUser.
type HeadscaleUserStatus struct {
	// Id of the user in Headscale, which does not change when it is renamed.
	// +optional
	UserID uint64 `json:"userId,omitempty"`

	// When the user was created in Headscale. Headscale may reuse an id after its database was
	// restored, so the id and this time identify the user together.
	// +optional
	CreatedAt *metav1.Time `json:"createdAt,omitempty"`

	// Whether the user existed before the HeadscaleUser, which took it over. If so, it stays in
	// Headscale when the HeadscaleUser is deleted, unless spec.deletionPolicy is Delete.
	// +optional
	Adopted bool `json:"adopted,omitempty"`

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

// HeadscaleUser is a user of a Headscale.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hsuser
// +kubebuilder:printcolumn:name="Headscale",type=string,JSONPath=`.spec.headscaleRef`
// +kubebuilder:printcolumn:name="Username",type=string,JSONPath=`.spec.username`
// +kubebuilder:printcolumn:name="ID",type=integer,JSONPath=`.status.userId`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type HeadscaleUser struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec HeadscaleUserSpec `json:"spec"`
	// Observed state of the HeadscaleUser. Its observedGeneration is -1 until the operator has seen it.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status HeadscaleUserStatus `json:"status,omitzero"`
}

// HeadscaleUserList is a list of HeadscaleUsers.
//
// +kubebuilder:object:root=true
type HeadscaleUserList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []HeadscaleUser `json:"items"`
}

// FinalizerUser keeps a HeadscaleUser until its user is deleted from Headscale. It is there only
// once there is something to delete, and never with the deletion policy Retain.
const FinalizerUser = GroupName + "/user"

// AnnotationCreating is set on a HeadscaleUser before its user is created. Its value identifies
// that user as the object's own until the status has its id. See
// docs/decisions/2026-11-26-whose-user-it-is.md.
const AnnotationCreating = GroupName + "/creating"

// Retained reports whether the user stays in Headscale when the HeadscaleUser is deleted.
func (u *HeadscaleUser) Retained() bool {
	return u.Spec.DeletionPolicy == DeletionPolicyRetain || u.Spec.DeletionPolicy == "" && u.Status.Adopted
}

// HeadscaleNamespace is the namespace of the Headscale that has the user.
func (u *HeadscaleUser) HeadscaleNamespace() string {
	if u.Spec.HeadscaleNamespace == "" {
		return u.Namespace
	}
	return u.Spec.HeadscaleNamespace
}
