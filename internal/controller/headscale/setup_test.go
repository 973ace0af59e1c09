package headscale

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

func TestStripForeign(t *testing.T) {
	owner := metav1.OwnerReference{APIVersion: v1beta1.GroupVersion.String(), Kind: v1beta1.Kind, Name: "headscale", Controller: ptr.To(true)}
	notController, ofAnother := owner, owner
	notController.Controller, ofAnother.Kind = nil, "Deployment"
	for name, test := range map[string]struct {
		object string
		owners []metav1.OwnerReference
		kept   bool
	}{
		"a child object":                    {"headscale", []metav1.OwnerReference{owner}, true},
		"a child object with a suffix":      {"headscale-metrics", []metav1.OwnerReference{owner}, true},
		"no owner":                          {"headscale", nil, false},
		"an owner that is no controller":    {"headscale", []metav1.OwnerReference{notController}, false},
		"an owner of another kind":          {"headscale", []metav1.OwnerReference{ofAnother}, false},
		"a name that no child object has":   {"look-alike-7", []metav1.OwnerReference{owner}, false},
		"the metrics of another Headscale":  {"other-metrics", []metav1.OwnerReference{owner}, false},
		"a name that begins as the owner's": {"headscale-metrics-metrics", []metav1.OwnerReference{owner}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			object := &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: test.object, UID: "u", ResourceVersion: "7", OwnerReferences: test.owners},
				Data:       map[string]string{"a": "b"},
			}
			kept, err := stripForeign(object)
			g.Expect(err).NotTo(HaveOccurred())
			if test.kept {
				g.Expect(kept).To(BeIdenticalTo(object))
			} else {
				g.Expect(kept).To(Equal(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: test.object, UID: "u", ResourceVersion: "7"}}))
			}
		})
	}
}

// TestLargeChildObject has a ConfigMap of a Headscale to which somebody has added a lot.
func TestLargeChildObject(t *testing.T) {
	for name, test := range map[string]struct {
		labels, length int
		kept           bool
	}{
		"little":        {10, 1000, true},
		"a lot of data": {0, 1_000_000, false},
		"many labels":   {20_000, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			object := &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "headscale", Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy}, OwnerReferences: []metav1.OwnerReference{{
					APIVersion: v1beta1.GroupVersion.String(), Kind: v1beta1.Kind, Name: "headscale", Controller: ptr.To(true)}}},
				Data: map[string]string{"config.yaml": "a", "more": strings.Repeat("x", test.length)},
			}
			for i := range test.labels {
				object.Labels[fmt.Sprintf("example.com/label-of-%020d", i)] = "x"
			}
			for _, manager := range []string{FieldManager, "kubectl"} {
				object.ManagedFields = append(object.ManagedFields, metav1.ManagedFieldsEntry{Manager: manager, FieldsV1: metav1.NewFieldsV1("{}")})
			}
			kept, err := stripForeign(object.DeepCopy())
			g.Expect(err).NotTo(HaveOccurred())
			if test.kept {
				g.Expect(kept).To(Equal(object))
				return
			}
			g.Expect(kept).To(And(
				HaveField("Data", Equal(map[string]string{"config.yaml": "a"})), HaveField("OwnerReferences", object.OwnerReferences),
				HaveField("Labels", Equal(map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy})),
				HaveField("ManagedFields", ConsistOf(HaveField("Manager", FieldManager)))))
		})
	}
}

// TestLargeMetadata has objects that anyone may make for the cache to hold.
func TestLargeMetadata(t *testing.T) {
	read := map[string]string{
		v1beta1.LabelManagedBy: v1beta1.ManagedBy, "app.kubernetes.io/instance": "headscale", "app.kubernetes.io/version": "v0.29.3",
		resources.AnnotationVersion: "v0.29.3", v1beta1.AnnotationKeyPrefix: "abc", "controller-revision-hash": "headscale-7",
	}
	for name, strip := range map[string]func(any) (any, error){"a pod": stripPod, "a Secret": stripSecret, "a claim": stripClaim} {
		t.Run(name, func(t *testing.T) {
			for more, length := range map[int]int{10: 10, 1000: len(read)} {
				g := NewWithT(t)
				object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}}}
				for key, value := range read {
					object.Labels[key] = value
				}
				for i := range more {
					object.Labels[fmt.Sprintf("example.com/%d", i)] = strings.Repeat("x", 60)
				}
				kept, err := strip(object)
				g.Expect(err).NotTo(HaveOccurred())
				stripped, ok := kept.(metav1.Object)
				g.Expect(ok).To(BeTrue())
				labels := stripped.GetLabels()
				for key, value := range read {
					g.Expect(labels).To(HaveKeyWithValue(key, value))
				}
				if more > 10 {
					g.Expect(labels).To(HaveLen(length), "what is read alone is kept")
				} else {
					g.Expect(labels).To(HaveLen(len(read)+more), "as it was")
				}
			}
		})
	}
}

func TestPanicIsAnError(t *testing.T) {
	g := NewWithT(t)
	failure := errors.New("away")
	g.Expect(recovered(t.Context(), func() error { return failure })).To(BeIdenticalTo(failure))
	g.Expect(recovered(t.Context(), func() error { return nil })).To(Succeed())
	err := recovered(t.Context(), func() error {
		none := []string{}
		return errors.New(none[strings.Count("", "x")])
	})
	g.Expect(err).To(MatchError(ContainSubstring("(runtime error: index out of range [0] with length 0)")))
	err = recovered(t.Context(), func() error { panic("password=TOPSECRET \x1b[31m" + strings.Repeat("x", 10_000)) })
	g.Expect(err.Error()).To(And(Not(ContainSubstring("TOPSECRET")), Not(ContainSubstring("\x1b"))))
	g.Expect(len(err.Error())).To(BeNumerically("<", 1000))
}
