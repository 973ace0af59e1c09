package kubeapi

import (
	"errors"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestInvalidFields(t *testing.T) {
	g := NewWithT(t)
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "a", field.ErrorList{field.Required(field.NewPath("spec"), "")})
	g.Expect(InvalidFields(fmt.Errorf("applying: %w", invalid))).To(ConsistOf(HaveField("Field", "spec")))

	policy := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "a", nil)
	policy.ErrStatus.Details.Causes = []metav1.StatusCause{{Message: "denied"}}
	bare := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "a", nil)
	bare.ErrStatus.Details = nil
	for _, err := range []error{nil, errors.New("spec"), policy, bare, apierrors.NewBadRequest("spec")} {
		g.Expect(InvalidFields(err)).To(BeEmpty(), "%v", err)
	}
}

func TestNewLike(t *testing.T) {
	g := NewWithT(t)
	var object metav1.Object = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	g.Expect(NewLike(object)).To(Equal(&corev1.Pod{}))
}

func TestBareLike(t *testing.T) {
	g := NewWithT(t)
	identity := metav1.ObjectMeta{Namespace: "a", Name: "b", UID: "c", ResourceVersion: "1"}
	full := &corev1.Pod{ObjectMeta: identity, Spec: corev1.PodSpec{NodeName: "n"}}
	full.Labels = map[string]string{"a": "b"}
	g.Expect(BareLike[metav1.Object](full)).To(Equal(&corev1.Pod{ObjectMeta: identity}))
}
