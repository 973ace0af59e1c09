package headscale

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// within are the writes of objects of one kind in one namespace.
func within(namespace, group, resource string) *admissionv1.MatchResources {
	return &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{resource}},
		}}},
	}
}

// mutateStatefulSets has the API server change the StatefulSets of a namespace, by
// expressions, and returns when it does.
func mutateStatefulSets(ctx context.Context, namespace string, mutations ...admissionv1.Mutation) {
	GinkgoHelper()
	needMutatingPolicies()
	mutations = append(mutations, applied(`Object{metadata: Object.metadata{annotations: {"policy": "on"}}}`))
	policy := &admissionv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Spec: admissionv1.MutatingAdmissionPolicySpec{
		MatchConstraints: within(namespace, "apps", "statefulsets"), Mutations: mutations, ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
	}}
	binding := &admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: policy.ObjectMeta, Spec: admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: policy.Name}}
	Expect(admin.Create(ctx, policy)).To(Succeed())
	Expect(admin.Create(ctx, binding)).To(Succeed())
	DeferCleanup(func(ctx context.Context) {
		Expect(admin.Delete(ctx, binding)).To(Succeed())
		Expect(admin.Delete(ctx, policy)).To(Succeed())
	})
	Eventually(func(g Gomega) map[string]string {
		live, err := probeUpdate(ctx, namespace)
		g.Expect(err).NotTo(HaveOccurred())
		return live.Annotations
	}).WithContext(ctx).Should(HaveKey("policy"))
}

// applied is a mutation by what is merged into the object.
func applied(expression string) admissionv1.Mutation {
	return admissionv1.Mutation{PatchType: admissionv1.PatchTypeApplyConfiguration, ApplyConfiguration: &admissionv1.ApplyConfiguration{Expression: expression}}
}

// patched is a mutation by a JSON patch.
func patched(expression string) admissionv1.Mutation {
	return admissionv1.Mutation{PatchType: admissionv1.PatchTypeJSONPatch, JSONPatch: &admissionv1.JSONPatch{Expression: expression}}
}

// probeUpdate asks what the API server would make of an update of the StatefulSet.
func probeUpdate(ctx context.Context, namespace string) (*appsv1.StatefulSet, error) {
	live := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "headscale"}}
	err := admin.Patch(ctx, live, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"probe":"on"}}}`)), client.DryRunAll)
	return live, err
}

var _ = Describe("A cluster that changes what is applied", func() {
	// begin is a Headscale that exists before there is a policy.
	begin := func(ctx context.Context) *operator {
		GinkgoHelper()
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		return o
	}
	const container = "/spec/template/spec/containers/0"
	for name, mutation := range map[string]admissionv1.Mutation{
		"resources": applied(`Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [
			Object.spec.template.spec.containers{name: "headscale", resources: Object.spec.template.spec.containers.resources{limits: {"cpu": "1", "memory": "1Gi"}}}]}}}}`),
		"labels and annotations": applied(`Object{metadata: Object.metadata{labels: {"team": "mesh"}}, spec: Object.spec{template: Object.spec.template{
			metadata: Object.spec.template.metadata{labels: {"mesh": "on"}, annotations: {"mesh/status": "injected"}}}}}`),
		"a container and an init container": applied(`Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
			containers: [Object.spec.template.spec.containers{name: "proxy", image: "proxy:1"}],
			initContainers: [Object.spec.template.spec.initContainers{name: "proxy-init", image: "proxy:1"}]}}}}`),
		"tolerations": patched(`has(object.spec.template.spec.tolerations) ? [] : [JSONPatch{op: "add", path: "/spec/template/spec/tolerations",
			value: [Object.spec.template.spec.tolerations{key: "kubernetes.io/arch", operator: "Exists"}]}]`),
		"another amount of processor": patched(`[JSONPatch{op: "replace", path: "` + container + `/resources/requests/cpu", value: "250m"}]`),
		"another seccomp profile": patched(`[JSONPatch{op: "replace", path: "/spec/template/spec/securityContext/seccompProfile",
			value: Object.spec.template.spec.securityContext.seccompProfile{type: "Localhost", localhostProfile: "profile.json"}}]`),
		"a default that a later Kubernetes may have": patched(`[JSONPatch{op: "add", path: "/spec/template/spec/volumes/3/projected/sources/0/serviceAccountToken/audience", value: "new"}]`),
		"another image": patched(`[JSONPatch{op: "replace", path: "` + container + `/image", value: "mirror.example/headscale:v0.29.3"}]`),
	} {
		It("by "+name+" has nothing written over and over, and no false Progressing", func(ctx context.Context) {
			o := begin(ctx)
			mutateStatefulSets(ctx, o.namespace, mutation)
			Expect(patch(ctx, o.namespace, "headscale", `{spec: {pod: {annotations: {changed: "yes"}}}}`)).To(Succeed())
			Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(And(
				HaveField("Annotations", HaveKey("policy")), HaveField("Spec.Template.Annotations", HaveKey("changed"))))
			runPod(ctx, o.namespace, "headscale", 1)
			ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
			Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
			before := o.settle(ctx, "headscale")
			for range 100 {
				_, err := o.look(ctx, "headscale")
				Expect(err).NotTo(HaveOccurred())
			}
			Expect(o.written()).To(Equal(before))
			Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)(NewGomega(Fail))).To(be("False", v1beta1.ReasonComplete, ""))

			Expect(patch(ctx, o.namespace, "headscale", `{spec: {pod: {annotations: {changed: again}}}}`)).To(Succeed())
			Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(
				HaveField("Spec.Template.Annotations", HaveKeyWithValue("changed", "again")))
		})
	}

	It("has one apply for each object when the operator starts again", func(ctx context.Context) {
		first := begin(ctx)
		mutateStatefulSets(ctx, first.namespace, patched(`[JSONPatch{op: "replace", path: "`+container+`/resources/requests/cpu", value: "250m"}]`))
		Expect(patch(ctx, first.namespace, "headscale", `{spec: {pod: {annotations: {changed: "yes"}}}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, first.namespace, "headscale")).WithContext(ctx).Should(HaveField("Annotations", HaveKey("policy")))
		first.touch(ctx, "headscale")
		first.stop()
		second := startOperatorIn(first.namespace)
		Eventually(second.passes.Load).WithContext(ctx).Should(BeNumerically(">", 0))
		for range 5 {
			second.touch(ctx, "headscale")
		}
		const apply = "PATCH /apis/apps/v1/namespaces/"
		Expect(second.written()).To(Equal([]string{apply + first.namespace + "/statefulsets/headscale", apply + first.namespace + "/statefulsets/headscale"}), "by dry run and by write")
	})
})

var _ = Describe("A cluster that refuses what is applied", func() {
	// refuse has the API server refuse objects in a namespace, as a probe then shows, and
	// returns how to end it.
	refuse := func(ctx context.Context, namespace string, match *admissionv1.MatchResources, expression, message string, probe func() error) func() {
		GinkgoHelper()
		policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: match, Validations: []admissionv1.Validation{{Expression: expression, Message: message}},
		}}
		binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: policy.ObjectMeta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		}}
		Expect(admin.Create(ctx, policy)).To(Succeed())
		Expect(admin.Create(ctx, binding)).To(Succeed())
		Eventually(probe).WithContext(ctx).Should(MatchError(ContainSubstring(message)))
		return func() {
			Expect(admin.Delete(ctx, binding)).To(Succeed())
			Expect(admin.Delete(ctx, policy)).To(Succeed())
		}
	}

	// refuseService has Services refused that have no label team.
	refuseService := func(ctx context.Context, namespace string) func() {
		GinkgoHelper()
		return refuse(ctx, namespace, within(namespace, "", "services"), "has(object.metadata.labels.team)", "every Service needs the label team", func() error {
			return admin.Patch(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "headscale"}},
				client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"probe":"on"}}}`)), client.DryRunAll)
		})
	}
	// makeExpandable is a Headscale that exists, with a volume that can be expanded.
	makeExpandable := func(ctx context.Context) (*operator, *corev1.PersistentVolumeClaim) {
		GinkgoHelper()
		o := startOperator(ctx)
		expandable := true
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: o.namespace}, Provisioner: "example.com/disk", AllowVolumeExpansion: &expandable}
		Expect(admin.Create(ctx, class)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, class)).To(Succeed()) })
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		runPod(ctx, o.namespace, "headscale", 1)
		return o, claim
	}

	It("is quoted, is not asked all the time, and is noticed when it accepts", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		end := refuse(ctx, o.namespace, within(o.namespace, "apps", "statefulsets"),
			"object.spec.template.spec.containers.all(c, c.image.contains('@sha256:'))", "images must be given by digest",
			func() error { _, err := probeUpdate(ctx, o.namespace); return err })
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.2, pod: {labels: {team: network}}}}`)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonReconcileFailed, "An admission policy of the cluster rejected a request: applying the StatefulSet headscale: "))
		Expect(ready(NewGomega(Fail)).Message).To(ContainSubstring("images must be given by digest"))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)(NewGomega(Fail))).To(be("True", v1beta1.ReasonReconcileFailed, ""))
		Expect(get[corev1.Service](ctx, o.namespace, "headscale")(NewGomega(Fail)).Labels).To(HaveKeyWithValue("app.kubernetes.io/version", "v0.29.2"), "it does not wait")

		before := len(o.written())
		Consistently(func() int { return len(o.written()) - before }, 2*time.Second).WithContext(ctx).Should(BeNumerically("<", 15))
		end()
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale"), 20*time.Second).WithContext(ctx).Should(image("v0.29.2"))
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, ""))
	})

	It("where it refuses one object does not keep others from being applied", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		end := refuseService(ctx, o.namespace)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.2, api_key: {auto_manage: false}}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(And(image("v0.29.2"), WithTransform(containers, Equal([]string{"headscale"}))))
		Eventually(missing[rbacv1.Role](ctx, o.namespace, "headscale")).WithContext(ctx).Should(BeTrue())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonReconcileFailed, "every Service needs the label team"))
		end()
		Eventually(get[corev1.Service](ctx, o.namespace, "headscale"), 20*time.Second).WithContext(ctx).Should(HaveField("Labels", HaveKeyWithValue("app.kubernetes.io/version", "v0.29.2")))
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, ""))
	})

	It("where it refuses one object does not keep the volume from being expanded", func(ctx context.Context) {
		o, claim := makeExpandable(ctx)
		before := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))
		end := refuseService(ctx, o.namespace)
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.2, persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		Eventually(func(g Gomega) string {
			return storageOf(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)(g)).String()
		}).WithContext(ctx).Should(Equal("2Gi"))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonReconcileFailed, "every Service needs the label team"))
		live := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))
		Expect(live.UID).To(Equal(before.UID))
		Expect(live.DeletionTimestamp).To(BeNil(), "it is recreated when all else is well")
		end()
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale"), 20*time.Second).WithContext(ctx).ShouldNot(HaveField("DeletionTimestamp", BeNil()))
	})

	It("where it would refuse the StatefulSet keeps the one that is there from being deleted", func(ctx context.Context) {
		o, claim := makeExpandable(ctx)
		match := within(o.namespace, "apps", "statefulsets")
		match.ResourceRules[0].Operations = []admissionv1.OperationType{admissionv1.Create}
		end := refuse(ctx, o.namespace, match, "false", "no more StatefulSets", func() error {
			other := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))
			other.ObjectMeta = metav1.ObjectMeta{Namespace: o.namespace, Name: "other"}
			return admin.Create(ctx, other, client.DryRunAll)
		})
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 2Gi}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonReconcileFailed, "no more StatefulSets"))
		Expect(storageOf(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)(NewGomega(Fail))).String()).To(Equal("2Gi"))
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail)).DeletionTimestamp).To(BeNil())
		end()
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale"), 20*time.Second).WithContext(ctx).ShouldNot(HaveField("DeletionTimestamp", BeNil()))
	})

	It("where it refuses one object does not keep it untold for what the pod is replaced", func(ctx context.Context) {
		o := startOperator(ctx)
		keys := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "keys"}, StringData: map[string]string{"noise": "first"}}
		Expect(admin.Create(ctx, keys)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest+"  secrets: {noise_private_key: {name: keys, key: noise}}\n")).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		end := refuseService(ctx, o.namespace)
		defer end()
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.2}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.29.2"))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, ""))
		Expect(admin.Patch(ctx, keys, client.RawPatch("application/merge-patch+json", []byte(`{"stringData": {"noise": "second"}}`)))).To(Succeed())
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement("Normal ReferenceChanged: Secret keys changed: replacing pod headscale-0"))
	})

	It("where it refuses to delete the Role does not keep other changes from being made", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		match := within(o.namespace, "rbac.authorization.k8s.io", "roles")
		match.ResourceRules[0].Operations = []admissionv1.OperationType{admissionv1.Delete}
		end := refuse(ctx, o.namespace, match, "false", "Roles stay", func() error {
			return admin.Delete(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale"}}, client.DryRunAll)
		})
		defer end()
		Expect(admin.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale-api-key"}})).To(Succeed())
		Eventually(func(g Gomega) []string { return secretsOf(get[rbacv1.Role](ctx, o.namespace, "headscale")(g)) }).WithContext(ctx).Should(BeEmpty(), "the rights end all the same")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.2}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(image("v0.29.2"))
	})
})
