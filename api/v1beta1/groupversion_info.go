// Package v1beta1 holds the Headscale resource and every name that programs
// outside this project may rely on: labels, annotations, Secret keys, condition
// types and their reasons.
//
// It depends on k8s.io/api and k8s.io/apimachinery only, so that a consumer can
// import it without a client or a controller library.
//
// +kubebuilder:object:generate=true
// +groupName=headscale.infrado.cloud
package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of the Headscale resource.
const GroupName = "headscale.infrado.cloud"

// Kind is the kind of the resource.
const Kind = "Headscale"

var (
	// GroupVersion is the group and version of the types in this package.
	GroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1beta1"}

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds the types in this package to a scheme.
	AddToScheme = schemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Headscale{}, &HeadscaleList{}, &HeadscalePolicy{}, &HeadscalePolicyList{},
		&HeadscalePreAuthKey{}, &HeadscalePreAuthKeyList{}, &HeadscaleUser{}, &HeadscaleUserList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
