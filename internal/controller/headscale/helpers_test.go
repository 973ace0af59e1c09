package headscale

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	gtypes "github.com/onsi/gomega/types"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
)

// shortest is the shortest manifest there is.
const shortest = `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata:
  name: headscale
spec:
  version: v0.29.3
  config:
    server_url: http://headscale.example.com
`

// create creates what the text says, as it stands, in a namespace.
func create(ctx context.Context, namespace, text string) error {
	manifest := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &manifest.Object); err != nil {
		return err
	}
	manifest.SetNamespace(namespace)
	return admin.Create(ctx, manifest)
}

// patch changes the Headscale of a name by a merge patch written as YAML.
func patch(ctx context.Context, namespace, name, text string) error {
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return err
	}
	headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	return admin.Patch(ctx, headscale, client.RawPatch(types.MergePatchType, raw))
}

// get reads an object; it fails the assertion that asks while there is none.
func get[T any, O apply.Object[T]](ctx context.Context, namespace, name string) func(Gomega) O {
	return func(g Gomega) O {
		live := O(new(T))
		g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, live)).To(Succeed())
		return live
	}
}

// missing reads an object and reports whether there is none.
func missing[T any, O apply.Object[T]](ctx context.Context, namespace, name string) func() bool {
	return func() bool {
		err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, O(new(T)))
		return err != nil && client.IgnoreNotFound(err) == nil
	}
}

// condition reads a condition of a Headscale.
func condition(ctx context.Context, namespace, name, kind string) func(Gomega) metav1.Condition {
	return func(g Gomega) metav1.Condition {
		headscale := get[v1beta1.Headscale](ctx, namespace, name)(g)
		found := meta.FindStatusCondition(headscale.Status.Conditions, kind)
		g.Expect(found).NotTo(BeNil(), "condition %s", kind)
		g.Expect(found.ObservedGeneration).To(Equal(headscale.Generation), "the generation of condition %s", kind)
		return *found
	}
}

// be matches a condition by its status, its reason and a part of its message.
func be(status metav1.ConditionStatus, reason, message string) gtypes.GomegaMatcher {
	return And(
		HaveField("Status", status),
		HaveField("Reason", reason),
		HaveField("Message", ContainSubstring(message)),
	)
}

// runPod does what the StatefulSet controller and the kubelet would until the pod, made
// of the present template, runs and is ready, or not; for no replicas there is none.
func runPod(ctx context.Context, namespace, name string, ready int32) {
	GinkgoHelper()
	live := rollOut(ctx, namespace, name, ready)
	if *live.Spec.Replicas == 0 {
		Expect(client.IgnoreNotFound(admin.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-0"}}))).To(Succeed())
		return
	}
	var states []corev1.ContainerStatus
	for i := range live.Spec.Template.Spec.Containers {
		states = append(states, running(live.Spec.Template.Spec.Containers[i].Name, ready > 0))
	}
	setPod(ctx, makePod(ctx, namespace, name), nil, states...)
}

// rollOut says of a StatefulSet what its controller would when the pod is ready, or not.
func rollOut(ctx context.Context, namespace, name string, ready int32) *appsv1.StatefulSet {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		live := get[appsv1.StatefulSet](ctx, namespace, name)(g)
		live.Status = appsv1.StatefulSetStatus{
			ObservedGeneration: live.Generation,
			Replicas:           *live.Spec.Replicas,
			ReadyReplicas:      ready,
			AvailableReplicas:  ready,
			UpdatedReplicas:    *live.Spec.Replicas,
			CurrentRevision:    revisionOf(live),
			UpdateRevision:     revisionOf(live),
		}
		g.Expect(admin.Status().Update(ctx, live)).To(Succeed())
	}).WithContext(ctx).Should(Succeed())
	return get[appsv1.StatefulSet](ctx, namespace, name)(NewGomega(Fail))
}

// keySecret is a Secret as the API Key Manager writes it.
func keySecret(namespace, name string, expiration time.Time) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name,
			Labels:    map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
			Annotations: map[string]string{
				v1beta1.AnnotationExpiration: expiration.UTC().Format(time.RFC3339Nano),
				v1beta1.AnnotationCreatedAt:  expiration.Add(-v1beta1.DefaultExpiration).UTC().Format(time.RFC3339Nano),
				v1beta1.AnnotationKeyPrefix:  "abcdefghijkl",
			},
		},
		Data: map[string][]byte{v1beta1.SecretDataKey: []byte("hskey-api-abcdefghijkl-rest")},
	}
}

// annotateSecret sets annotations of a Secret; one without a value is removed.
func annotateSecret(ctx context.Context, secret *corev1.Secret, annotations map[string]any) {
	GinkgoHelper()
	raw, err := yaml.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	Expect(err).NotTo(HaveOccurred())
	raw, err = yaml.YAMLToJSON(raw)
	Expect(err).NotTo(HaveOccurred())
	Expect(admin.Patch(ctx, secret.DeepCopy(), client.RawPatch(types.MergePatchType, raw))).To(Succeed())
}

// touch changes a Headscale in a way that means nothing, so that it is looked at
// again, and waits until it has been.
func (o *operator) touch(ctx context.Context, name string) {
	GinkgoHelper()
	before := o.passes.Load()
	Expect(patch(ctx, o.namespace, name, fmt.Sprintf(`{metadata: {annotations: {touched: "%d"}}}`, before))).To(Succeed())
	Eventually(o.passes.Load).WithContext(ctx).Should(BeNumerically(">", before))
}

// settle touches a Headscale until nothing is written any more, also because of what the cache did not have yet. It
// returns what was written.
func (o *operator) settle(ctx context.Context, name string) []string {
	GinkgoHelper()
	var written []string
	Eventually(func() int {
		written = o.written()
		o.touch(ctx, name)
		o.touch(ctx, name) // the one before has ended
		return len(withoutDryRuns(o.written()[len(written):]))
	}).WithContext(ctx).Should(BeZero())
	return written
}

// validatesTemplates reports whether the API server refuses a StatefulSet whose pod it would
// refuse, which Kubernetes 1.30 does not.
func validatesTemplates(ctx context.Context) bool {
	GinkgoHelper()
	labels := map[string]string{"app": "invalid"}
	err := admin.Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "invalid"},
		Spec: appsv1.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "Not a Name", Image: "a"}}},
		}},
	}, client.DryRunAll)
	Expect(err == nil || apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
	return err != nil
}

// needMutatingPolicies skips a spec where the API server has no MutatingAdmissionPolicy: before
// Kubernetes 1.36.
func needMutatingPolicies() {
	GinkgoHelper()
	_, err := admin.RESTMapper().RESTMapping(schema.GroupKind{Group: admissionv1.GroupName, Kind: "MutatingAdmissionPolicy"}, "v1")
	if meta.IsNoMatchError(err) {
		Skip("this API server has no MutatingAdmissionPolicy")
	}
	Expect(err).NotTo(HaveOccurred())
}
