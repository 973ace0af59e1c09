package apikey

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Owner is the Headscale that a Secret goes with: Kubernetes' garbage collector
// deletes the Secret after it.
type Owner struct {
	// Name is its name, in the namespace of the Secret.
	Name string
	// UID distinguishes it from another one of that name, made before or after.
	UID types.UID
}

// parseOwner reads NAME/UID.
func parseOwner(text string) (*Owner, error) {
	name, uid, _ := strings.Cut(text, "/")
	// A UID is a UUID, which is also a label of a domain name.
	if len(validation.IsDNS1123Subdomain(name)) > 0 || len(validation.IsDNS1123Label(uid)) > 0 {
		return nil, fmt.Errorf("--owner is %q; it must be NAME/UID: a Headscale's metadata.name and metadata.uid, such as headscale/6f9619ff-8b86-4d01-b42d-00cf4fc964ff", text)
	}
	return &Owner{Name: name, UID: types.UID(uid)}, nil
}

// references is what a Secret says of its owner; nothing if there is none. The owner
// is no controller of it, and its deletion waits for nothing.
func (o *Owner) references() []metav1.OwnerReference {
	if o == nil {
		return nil
	}
	return []metav1.OwnerReference{{
		APIVersion: v1beta1.GroupVersion.String(), Kind: v1beta1.Kind, Name: o.Name, UID: o.UID,
	}}
}
