package headscale

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// newOf are the objects, by what the tests call them, that anyone may make for the cache to hold.
var newOf = map[string]client.Object{"a pod": &corev1.Pod{}, "a Secret": &metav1.PartialObjectMetadata{}, "a claim": &corev1.PersistentVolumeClaim{}}

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
				object, ok := newOf[name].DeepCopyObject().(client.Object)
				g.Expect(ok).To(BeTrue())
				object.SetLabels(map[string]string{})
				for key, value := range read {
					object.GetLabels()[key] = value
				}
				for i := range more {
					object.GetLabels()[fmt.Sprintf("example.com/%d", i)] = strings.Repeat("x", 60)
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

// TestHugeMetadata has in every part of metadata as much as a request may have. What is kept is
// little, and says whose the object is.
func TestHugeMetadata(t *testing.T) {
	controller := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "headscale", UID: "u", Controller: ptr.To(true)}
	long := strings.Repeat("x", 1_000_000)
	for name, strip := range map[string]func(any) (any, error){"a pod": stripPod, "a Secret": stripSecret, "a claim": stripClaim} {
		for part, test := range map[string]struct {
			change func(client.Object)
			owner  metav1.OwnerReference
		}{
			"finalizers": {func(o client.Object) {
				for i := range 10_000 {
					o.SetFinalizers(append(o.GetFinalizers(), fmt.Sprintf("example.com/%080d", i)))
				}
			}, controller},
			"owners": {func(o client.Object) {
				owners := []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: long, UID: "v"}}
				o.SetOwnerReferences(append(owners, o.GetOwnerReferences()...))
			}, controller},
			"the controller": {func(o client.Object) { o.GetOwnerReferences()[0].Name = long }, metav1.OwnerReference{
				APIVersion: "apps/v1", Kind: "StatefulSet", Name: long[:maxValue], UID: "u", Controller: ptr.To(true)}},
			"annotations of ours": {func(o client.Object) {
				o.SetAnnotations(map[string]string{v1beta1.AnnotationPrefix + "more": long, v1beta1.AnnotationKeyPrefix: long, v1beta1.AnnotationRetiring: long})
			}, controller},
			"labels of ours": {func(o client.Object) {
				o.SetLabels(map[string]string{})
				for i := range 10_000 {
					o.GetLabels()[fmt.Sprintf("app.kubernetes.io/%060d", i)] = "x"
				}
			}, controller},
		} {
			t.Run(part+" of "+name, func(t *testing.T) {
				g := NewWithT(t)
				object, ok := newOf[name].DeepCopyObject().(client.Object)
				g.Expect(ok).To(BeTrue())
				object.SetOwnerReferences([]metav1.OwnerReference{controller})
				test.change(object)
				kept, err := strip(object)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(jsonSize(g, kept)).To(BeNumerically("<", 32<<10))
				stripped, ok := kept.(metav1.Object)
				g.Expect(ok).To(BeTrue())
				g.Expect(metav1.GetControllerOf(stripped)).To(HaveValue(Equal(test.owner)))
			})
		}
	}
}

// TestLedgerIsKept has a Secret with a long ledger and much else.
func TestLedgerIsKept(t *testing.T) {
	g := NewWithT(t)
	ledger := strings.Repeat("abcdefghijkl@2026-01-02T03:04:05.678901234Z,", 200)
	kept, err := stripSecret(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
		v1beta1.AnnotationRetiring: ledger, "example.com/more": strings.Repeat("x", 100_000),
	}}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(kept).To(HaveField("Annotations", Equal(map[string]string{v1beta1.AnnotationRetiring: ledger})))
}

// TestHugeClaim has a claim whose selector is as large as a request may be.
func TestHugeClaim(t *testing.T) {
	g := NewWithT(t)
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "data-headscale-0", UID: "u", ResourceVersion: "7", Annotations: map[string]string{resources.AnnotationVersion: "v0.29.3"}},
		Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("fast"), Resources: corev1.VolumeResourceRequirements{Requests: size}},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
	large := claim.DeepCopy()
	large.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "In", Values: make([]string, 1_000_000)}}}
	large.Spec.VolumeName, large.ManagedFields = "pv", []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	large.Spec.Resources.Requests["example.com/more"] = resource.MustParse("1")
	kept, err := stripClaim(large)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(kept).To(Equal(claim))
}

// The finalizers of a Job say why it stays.
func TestFinalizersOfAJob(t *testing.T) {
	g := NewWithT(t)
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "a", Finalizers: []string{"example.com/audit", metav1.FinalizerDeleteDependents}}}
	stripped, err := stripJob(job.DeepCopy())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(stripped).To(HaveField("Finalizers", job.Finalizers))
	for i := range 2000 {
		job.Finalizers = append(job.Finalizers, fmt.Sprintf("example.com/audit-%d", i))
	}
	stripped, err = stripJob(job.DeepCopy())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(stripped).To(HaveField("Finalizers", BeEmpty()))
}

// TestHugePod has a pod with a thousand containers.
func TestHugePod(t *testing.T) {
	g := NewWithT(t)
	pod := &corev1.Pod{}
	for i := range 1000 {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: fmt.Sprintf("more-%d", i)})
	}
	pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: resources.ContainerHeadscale, Ready: true})
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerManager}}
	kept, err := stripPod(pod)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(kept).To(And(
		HaveField("Status.ContainerStatuses", Equal([]corev1.ContainerStatus{{Name: resources.ContainerHeadscale, Ready: true}})),
		HaveField("Status.InitContainerStatuses", HaveLen(1))))
}

// jsonSize is how many bytes an object has.
func jsonSize(g Gomega, object any) int {
	text, err := json.Marshal(object)
	g.Expect(err).NotTo(HaveOccurred())
	return len(text)
}
