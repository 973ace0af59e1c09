package headscale

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// namespacedUser is who the operator is with config/namespaced.
const namespacedUser = "system:serviceaccount:headscale-operator-system:headscale-operator-controller-manager"

// kustomized are the objects that a directory below config makes.
func kustomized(ctx context.Context, directory string) []*unstructured.Unstructured {
	GinkgoHelper()
	kubectl := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	output, err := exec.CommandContext(ctx, kubectl, "kustomize", filepath.Join("..", "..", "..", "config", directory)).Output()
	Expect(err).NotTo(HaveOccurred())
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(output), 4096)
	for {
		object := &unstructured.Unstructured{}
		if decoder.Decode(object) != nil {
			return objects
		}
		objects = append(objects, object)
	}
}

// narrowNamespace makes a namespace in which the operator has the rights of
// config/namespaced, and waits until they are in force.
func narrowNamespace(ctx context.Context) string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "narrow-"}}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
	rights := kustomized(ctx, "namespaced/rights")
	Expect(rights).To(HaveLen(2))
	for _, object := range rights {
		object.SetNamespace(namespace.Name)
		Expect(admin.Create(ctx, object)).To(Succeed())
	}
	Eventually(mayInNamespaces(ctx, "create", "secrets", namespace.Name)).WithContext(ctx).Should(BeTrue())
	return namespace.Name
}

// mayInNamespaces asks whether the operator with config/namespaced may do something in a namespace.
func mayInNamespaces(ctx context.Context, verb, resource, namespace string) func(Gomega) bool {
	return allowed(ctx, namespacedUser, authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Resource: resource})
}

var _ = Describe("The operator in named namespaces", func() {
	It("works with the rights of config/namespaced and none on the cluster", func(ctx context.Context) {
		namespace := narrowNamespace(ctx)
		for _, elsewhere := range []string{"default", ""} {
			Expect(mayInNamespaces(ctx, "get", "secrets", elsewhere)(NewGomega(Fail))).To(BeFalse(), elsewhere)
			Expect(mayInNamespaces(ctx, "list", "configmaps", elsewhere)(NewGomega(Fail))).To(BeFalse(), elsewhere)
		}

		o := startOperatorAs(namespacedUser, namespace)
		Expect(admin.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "keys"}, StringData: map[string]string{"noise": "privkey:x"}})).To(Succeed())
		Expect(create(ctx, o.namespace, shortest+"  secrets: {noise_private_key: {name: keys, key: noise}}\n")).To(Succeed())
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		By("checking a change by a preflight")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {log: {level: debug}}}}`)).To(Succeed())
		Eventually(get[v1beta1.Headscale](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Status.Preflight", HaveField("Outcome", v1beta1.PreflightPassed)))
		Eventually(missing[batchv1.Job](ctx, o.namespace, preflightJob)).WithContext(ctx).Should(BeTrue())
	})

	It("has no role on objects of the cluster, and is told its namespaces", func(ctx context.Context) {
		kinds := map[string]int{}
		for _, object := range kustomized(ctx, "namespaced") {
			kinds[object.GetKind()]++
			switch object.GetKind() {
			case "ClusterRole":
				Expect(object.GetName()).To(Or(MatchRegexp("^headscale-operator-headscale(policy|preauthkey|user)?-(editor|viewer)-role$"), BeElementOf(
					"headscale-operator-metrics-reader", "headscale-operator-metrics-auth-role")), "all but the last are for others")
			case "ClusterRoleBinding":
				role, _, err := unstructured.NestedString(object.Object, "roleRef", "name")
				Expect(err).NotTo(HaveOccurred())
				Expect(role).To(Equal("headscale-operator-metrics-auth-role"), "which is about who reads the metrics")
			}
			if object.GetKind() == "Deployment" {
				containers, _, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
				Expect(err).NotTo(HaveOccurred())
				Expect(containers).To(HaveExactElements(HaveKeyWithValue("env", ContainElement(map[string]any{"name": "WATCH_NAMESPACES", "value": "default"}))))
			}
		}
		Expect(kinds).To(And(HaveKeyWithValue("ClusterRoleBinding", 1), HaveKeyWithValue("Deployment", 1), HaveKeyWithValue("RoleBinding", 1)))
	})
})
