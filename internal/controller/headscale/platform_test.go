package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// podsOf selects the pods that are created in a namespace.
func podsOf(namespace string) *admissionv1.MatchResources {
	every, equivalent := &metav1.LabelSelector{}, admissionv1.Equivalent
	return &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		ObjectSelector:    every, MatchPolicy: &equivalent,
		ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}}},
	}
}

// assignUserIDs has admission do with the pods of a namespace what OpenShift's does: one
// without a user id gets the first of the namespace's range, and the group for its volumes;
// one with an id outside the range is refused.
func assignUserIDs(ctx context.Context, namespace string) {
	GinkgoHelper()
	needMutatingPolicies()
	fail, never := admissionv1.Fail, admissionv1.NeverReinvocationPolicy
	mutating := &admissionv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec: admissionv1.MutatingAdmissionPolicySpec{
			FailurePolicy: &fail, ReinvocationPolicy: never, MatchConstraints: podsOf(namespace),
			MatchConditions: []admissionv1.MatchCondition{{Name: "without-user", Expression: "!has(object.spec.securityContext.runAsUser)"}},
			Mutations: []admissionv1.Mutation{{
				PatchType: admissionv1.PatchTypeApplyConfiguration,
				ApplyConfiguration: &admissionv1.ApplyConfiguration{
					Expression: "Object{spec: Object.spec{securityContext: Object.spec.securityContext{runAsUser: 1000690000, fsGroup: 1000690000}}}",
				},
			}},
		},
	}
	validating := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail, MatchConstraints: podsOf(namespace),
			Validations: []admissionv1.Validation{{
				Expression: `object.spec.securityContext.runAsUser >= 1000690000 && object.spec.securityContext.runAsUser < 1000700000 &&
object.spec.securityContext.fsGroup == 1000690000 && !has(object.spec.securityContext.runAsGroup) &&
object.spec.containers.all(c, !has(c.securityContext.runAsUser))`,
				Message: "must be in the ranges: [1000690000, 1000699999]",
			}},
		},
	}
	for _, object := range []client.Object{
		mutating, validating,
		&admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Spec: admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: namespace}},
		&admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: namespace, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		}},
	} {
		Expect(admin.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, object)).To(Succeed()) })
	}
}

var _ = Describe("A namespace whose admission gives out user ids", func() {
	It("refuses the fixed ids, and runs a Headscale that leaves them to the platform", func(ctx context.Context) {
		o := startOperator(ctx)
		assignUserIDs(ctx, o.namespace)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		set := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")
		Eventually(set).WithContext(ctx).ShouldNot(BeNil())
		Eventually(func() error { return admin.Create(ctx, podOf(set(NewGomega(Fail))), client.DryRunAll) }).WithContext(ctx).Should(
			MatchError(apierrors.IsInvalid, "a refusal by the policy"))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {auto_manage: true}, pod: {security_context: {}}}}`)).To(Succeed())
		Eventually(set).WithContext(ctx).Should(HaveField("Spec.Template.Spec.SecurityContext.RunAsUser", BeNil()))
		Eventually(func() error { return admin.Create(ctx, podOf(set(NewGomega(Fail))), client.DryRunAll) }).WithContext(ctx).Should(Succeed())
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		pod := get[corev1.Pod](ctx, o.namespace, "headscale-0")(NewGomega(Fail))
		Expect(*pod.Spec.SecurityContext.RunAsUser).To(BeEquivalentTo(1000690000))
		before := o.settle(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))
	})
})
