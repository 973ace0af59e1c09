package headscale

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("A Headscale that is larger than the limits", func() {
	many := func(entries int) string {
		text := strings.Builder{}
		for i := range entries {
			fmt.Fprintf(&text, "    label-%d: a\n", i)
		}
		return text.String()
	}

	DescribeTable("is refused in its status, and forwards rotation requests",
		func(ctx context.Context, manifest, message string) {
			o := startOperator(ctx)
			Expect(create(ctx, o.namespace, manifest)).To(Succeed())
			Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
				be(metav1.ConditionFalse, v1beta1.ReasonInvalidConfig, message))
			cached := &v1beta1.Headscale{}
			Expect(o.reconciler.Client.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: "headscale"}, cached)).To(Succeed())
			kept, err := yaml.Marshal(cached)
			Expect(err).NotTo(HaveOccurred())
			Expect(len(kept)).To(BeNumerically("<", 4096), "what the cache keeps")

			Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
			Expect(patch(ctx, o.namespace, "headscale", `{metadata: {annotations: {`+v1beta1.AnnotationRotateRequestedAt+`: now}}}`)).To(Succeed())
			Eventually(get[corev1.Secret](ctx, o.namespace, "headscale-api-key")).WithContext(ctx).Should(
				HaveField("Annotations", HaveKeyWithValue(v1beta1.AnnotationRotateRequestedAt, "now")))
		},
		Entry("in its config", shortest+"    extra: "+strings.Repeat("x", v1beta1.MaxConfigSize)+"\n",
			"spec.config cannot be read: it has 262200 bytes, and 262144 are allowed: make it shorter"),
		Entry("in its labels", strings.Replace(shortest, "spec:\n", "  labels:\n"+many(5000)+"spec:\n", 1),
			"spec.pod with the metadata and everything else besides spec.config has "),
		Entry("in its pod", shortest+"  pod:\n    env:\n"+variables(5, 30_000),
			"bytes, and 131072 are allowed: write less"),
	)

	It("is told so also where it becomes it by its labels", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be(metav1.ConditionFalse, v1beta1.ReasonProgressing, ""))
		Expect(patch(ctx, o.namespace, "headscale", "metadata:\n  labels:\n"+many(5000))).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be(metav1.ConditionFalse, v1beta1.ReasonInvalidConfig, "4000 are allowed"))
		Expect(patch(ctx, o.namespace, "headscale", "metadata:\n  labels: null\n")).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be(metav1.ConditionFalse, v1beta1.ReasonProgressing, ""))
	})

	It("works again once it is smaller", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  pod:\n    env:\n"+variables(5, 30_000))).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be(metav1.ConditionFalse, v1beta1.ReasonInvalidConfig, "131072"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {pod: null}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be(metav1.ConditionFalse, v1beta1.ReasonProgressing, ""))
	})
})

var _ = Describe("A child object to which somebody has added a lot", func() {
	It("is compared as usual, and restored", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		var config *corev1.ConfigMap
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		config = get[corev1.ConfigMap](ctx, o.namespace, "headscale")(NewGomega(Fail))
		more := func(field, value string) error {
			raw := fmt.Sprintf(`{"data":{%q:%q}}`, field, value)
			return admin.Patch(ctx, config.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(raw)))
		}
		Expect(more("more", strings.Repeat("x", 900_000))).To(Succeed())
		cached := &corev1.ConfigMap{}
		Eventually(func() (map[string]string, error) {
			err := o.reconciler.Client.Get(ctx, client.ObjectKeyFromObject(config), cached)
			return cached.Data, err
		}).WithContext(ctx).Should(Equal(config.Data), "what is kept")
		before := o.settle(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))

		Expect(more("config.yaml", "changed")).To(Succeed())
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(
			HaveField("Data", And(HaveKeyWithValue("config.yaml", config.Data["config.yaml"]), HaveKey("more"))))
	})
})

// variables is spec.pod.env with a number of variables, each of a length, in YAML.
func variables(number, length int) string {
	text := strings.Builder{}
	for i := range number {
		fmt.Fprintf(&text, "    - {name: VARIABLE_%d, value: %s}\n", i, strings.Repeat("x", length))
	}
	return text.String()
}

var _ = Describe("An object from before there was a limit", func() {
	// The definition is the resource's, for another group.
	const group = "before.example.com"

	It("can be changed elsewhere, and made smaller", func(ctx context.Context) {
		o := startOperator(ctx)
		limited := definitionFor(group)
		before := limited.DeepCopy()
		delete(at(before.Object, "spec", "versions", "0", "schema", "openAPIV3Schema", "properties", "spec", "properties", "pod",
			"properties", "tolerations", "items", "properties", "key"), "maxLength")
		Expect(admin.Create(ctx, before)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, before)).To(Succeed()) })

		object := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal([]byte(strings.Replace(shortest, v1beta1.GroupName, group, 1)), &object.Object)).To(Succeed())
		object.SetNamespace(o.namespace)
		change := func(text string) error {
			raw, err := yaml.YAMLToJSON([]byte(text))
			Expect(err).NotTo(HaveOccurred())
			return admin.Patch(ctx, object.DeepCopy(), client.RawPatch(types.MergePatchType, raw))
		}
		tolerate := func(key string) error {
			return change("{spec: {pod: {tolerations: [{key: " + key + ", operator: Exists}]}}}")
		}
		Eventually(func() error { return admin.Create(ctx, object.DeepCopy()) }).WithContext(ctx).Should(Succeed())
		Expect(tolerate(strings.Repeat("k", 2000))).To(Succeed())

		Eventually(func() error {
			live := before.DeepCopy()
			Expect(admin.Get(ctx, client.ObjectKeyFromObject(before), live)).To(Succeed())
			live.Object["spec"] = limited.Object["spec"]
			return admin.Update(ctx, live)
		}).WithContext(ctx).Should(Succeed())
		// It takes effect some time after it was written.
		Eventually(func() error { return admin.Create(ctx, tolerating(object, strings.Repeat("k", 2000))) }).WithContext(ctx).Should(
			MatchError(MatchRegexp("Too long: may not be (more than 1024 bytes|longer than 1024)")))
		Expect(change("{metadata: {annotations: {a: b}}}")).To(Succeed())
		Expect(change("{spec: {version: v0.29.2, pod: {labels: {c: d}}}}")).To(Succeed())
		Expect(tolerate(strings.Repeat("l", 2000))).To(MatchError(MatchRegexp("Too long: may not be (more than 1024 bytes|longer than 1024)")))
		Expect(tolerate("short")).To(Succeed())
	})
})

// tolerating is an object of another name that tolerates a taint.
func tolerating(object *unstructured.Unstructured, key string) *unstructured.Unstructured {
	GinkgoHelper()
	other := object.DeepCopy()
	other.SetName("other")
	taints := []any{map[string]any{"key": key, "operator": "Exists"}}
	Expect(unstructured.SetNestedSlice(other.Object, taints, "spec", "pod", "tolerations")).To(Succeed())
	return other
}

// definitionFor is the resource's definition for another group.
func definitionFor(group string) *unstructured.Unstructured {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "config", "crd", "bases", "headscale.infrado.cloud_headscales.yaml"))
	Expect(err).NotTo(HaveOccurred())
	definition := &unstructured.Unstructured{}
	Expect(yaml.Unmarshal([]byte(strings.ReplaceAll(string(text), v1beta1.GroupName, group)), &definition.Object)).To(Succeed())
	return definition
}

// at is the object at a path, whose numbers are places in lists.
func at(in any, path ...string) map[string]any {
	GinkgoHelper()
	for _, part := range path {
		switch container := in.(type) {
		case map[string]any:
			in = container[part]
		case []any:
			place, err := strconv.Atoi(part)
			Expect(err).NotTo(HaveOccurred())
			in = container[place]
		}
	}
	found, ok := in.(map[string]any)
	Expect(ok).To(BeTrue(), "%v", path)
	return found
}

var _ = Describe("Child objects to which somebody has added a lot", func() {
	It("are kept without that, and not written for it", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))

		change(ctx, o.namespace, "headscale", func(live *appsv1.StatefulSet) {
			more := corev1.Container{Name: "more", Image: "more"}
			for i := range 20 {
				more.Env = append(more.Env, corev1.EnvVar{Name: fmt.Sprintf("MORE_%d", i), Value: strings.Repeat("x", 30_000)})
			}
			live.Spec.Template.Spec.Containers = append(live.Spec.Template.Spec.Containers, more)
		})
		change(ctx, o.namespace, "headscale", func(live *corev1.ServiceAccount) {
			for i := range 3000 {
				live.Secrets = append(live.Secrets, corev1.ObjectReference{Name: fmt.Sprintf("%0200d", i)})
			}
		})
		live := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))
		account := get[corev1.ServiceAccount](ctx, o.namespace, "headscale")(NewGomega(Fail))
		cached, cachedAccount := &appsv1.StatefulSet{}, &corev1.ServiceAccount{}
		Eventually(func(g Gomega) {
			key := client.ObjectKey{Namespace: o.namespace, Name: "headscale"}
			g.Expect(o.reconciler.Client.Get(ctx, key, cached)).To(Succeed())
			g.Expect(o.reconciler.Client.Get(ctx, key, cachedAccount)).To(Succeed())
			g.Expect(cached.ResourceVersion).To(Equal(live.ResourceVersion))
			g.Expect(cachedAccount.ResourceVersion).To(Equal(account.ResourceVersion))
		}).WithContext(ctx).Should(Succeed())
		Expect(cached.Size() + cachedAccount.Size()).To(BeNumerically("<", 32<<10))
		applied, err := extractStatefulSet(live, FieldManager)
		Expect(err).NotTo(HaveOccurred())
		Expect(extractStatefulSet(cached, FieldManager)).To(Equal(applied))

		o.touch(ctx, "headscale")
		before := len(o.asked())
		o.touch(ctx, "headscale")
		o.touch(ctx, "headscale")
		for _, request := range o.asked()[before:] {
			Expect(request.URL.Path).NotTo(Or(HaveSuffix("/statefulsets/headscale"), HaveSuffix("/serviceaccounts/headscale")), request.Method)
		}
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail)).ResourceVersion).To(Equal(live.ResourceVersion))
		Expect(get[corev1.ServiceAccount](ctx, o.namespace, "headscale")(NewGomega(Fail)).ResourceVersion).To(Equal(account.ResourceVersion))
	})
})
