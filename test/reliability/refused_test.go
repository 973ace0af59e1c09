package reliability_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const sectionRefused = "refused"

// refusalTime is how long a refusal lasts at least. It is several attempts long.
const refusalTime = 3 * time.Second

// refusal is a reason for the API server to say no.
type refusal struct {
	doing, failure, produced string
	refuse, permit           func(ctx context.Context, w *world)
	reason                   rotation.Reason
	// created is how many keys may be made meanwhile.
	created int
}

var refusals = []refusal{
	{"first key", "no right to write the Secret", "RoleBinding deleted", withdrawRights, restoreRights, apikey.ReasonForbidden, 0},
	{"rotation", "no right to write the Secret", "RoleBinding deleted", withdrawRights, restoreRights, apikey.ReasonForbidden, 0},
	{"first key", "quota exceeded", "ResourceQuota of no Secrets", setQuota, removeQuota, apikey.ReasonQuotaExceeded, 0},
	{"first key", "namespace terminating", "namespace deleted, and made again", endNamespace, remakeNamespace, apikey.ReasonNamespaceTerminating, 0},
	{"first key", "admission denies every write", "ValidatingAdmissionPolicy", denyWrites("false"), permitWrites, apikey.ReasonKubernetesRefused, 0},
	{"rotation", "admission denies every write", "ValidatingAdmissionPolicy", denyWrites("false"), permitWrites, apikey.ReasonKubernetesRefused, 0},
	{"first key", "admission denies only to store the key", "ValidatingAdmissionPolicy", denyWrites(noKeyInside), permitWrites, apikey.ReasonKubernetesRefused, 1},
}

// noKeyInside admits the mark of a key on its way, and not the key.
const noKeyInside = "!has(object.data)"

var _ = Describe("When the API server refuses a write, a manager", func() {
	eachHeadscale("makes no key that cannot be stored", func(ctx SpecContext, version string) {
		together(refusals, func(r refusal) { makeKeyAfterRefusal(ctx, r, version) })
	})

	It("is restarted meanwhile, and expires the key that could not be stored", func(ctx SpecContext) {
		w := newWorld(ctx, sharedHeadscale(ctx, latestVersions[0]), faulty)
		before := w.count(ctx)
		denyWrites(noKeyInside)(ctx, w)
		w.run(calm...)
		Eventually(ctx, func() int { return w.createdSince(ctx, before) }).Should(Equal(1))
		w.terminate()
		permitWrites(ctx, w)
		w.run(calm...)
		seen := observation{
			Section: sectionRefused, Failure: "admission denies only to store the key, and the manager is restarted (first key)",
			Produced: "ValidatingAdmissionPolicy, SIGTERM", Headscale: latestVersions[0], Wanted: 1,
		}
		w.healsInto(ctx, &seen, before)
		w.expectCreated(seen, 2)
		note(seen)
	})
})

func makeKeyAfterRefusal(ctx context.Context, r refusal, version string) {
	GinkgoHelper()
	w := newWorld(ctx, sharedHeadscale(ctx, version), faulty)
	goOn := w.begin(ctx, r.doing)
	before, consumer := w.count(ctx), w.consume(0)
	r.refuse(ctx, w)
	goOn()
	Eventually(ctx, w.news).Should(ContainSubstring(saying(r.reason)))
	Consistently(ctx, func() int { return w.createdSince(ctx, before) }).
		WithTimeout(refusalTime).WithPolling(100*time.Millisecond).Should(BeNumerically("<=", r.created), r.failure)
	meanwhile := w.createdSince(ctx, before)
	r.permit(ctx, w)
	seen := observation{
		Section: sectionRefused, Failure: fmt.Sprintf("%s (%s)", r.failure, r.doing),
		Produced: r.produced, Headscale: version, Wanted: 1,
		Note: fmt.Sprintf("keys made while refused: %d", meanwhile),
	}
	w.healsInto(ctx, &seen, before)
	consumer.into(&seen)
	w.expectCreated(seen, 1)
	Expect(seen.Streak).To(BeNumerically("<=", 1), r.failure)
	note(seen)
}

func withdrawRights(ctx context.Context, w *world) {
	GinkgoHelper()
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: identityName}}
	Expect(admin.Delete(ctx, binding)).To(Succeed())
	Eventually(ctx, w.mayWrite).Should(BeFalse())
}

func restoreRights(ctx context.Context, w *world) {
	GinkgoHelper()
	grantRights(ctx, w.namespace)
}

// mayWrite asks the API server for the manager's right to update the Secret.
func (w *world) mayWrite(ctx context.Context) (bool, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: w.user(),
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: w.namespace, Verb: "update", Resource: "secrets", Name: v1beta1.DefaultSecretName,
		},
	}}
	err := admin.Create(ctx, review)
	return review.Status.Allowed, err
}

// setQuota makes a quota as the controller would leave it, which is not there.
func setQuota(ctx context.Context, w *world) {
	GinkgoHelper()
	hard := corev1.ResourceList{corev1.ResourceSecrets: resource.MustParse("0")}
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "no-secrets"},
		Spec:       corev1.ResourceQuotaSpec{Hard: hard},
	}
	Expect(admin.Create(ctx, quota)).To(Succeed())
	quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: hard}
	Expect(admin.Status().Update(ctx, quota)).To(Succeed())
	w.awaitRefusal(ctx)
}

func removeQuota(ctx context.Context, w *world) {
	GinkgoHelper()
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "no-secrets"}}
	Expect(admin.Delete(ctx, quota)).To(Succeed())
}

// awaitRefusal waits until the API server has heard of what makes it refuse the
// manager's writes.
func (w *world) awaitRefusal(ctx context.Context) {
	GinkgoHelper()
	config := plane.Config()
	config.Impersonate.UserName = w.user()
	manager, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	Expect(err).NotTo(HaveOccurred())
	Eventually(ctx, func() error {
		try := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, GenerateName: "try-"}}
		try.Data = map[string][]byte{"some": []byte("thing")}
		return manager.Create(ctx, try, client.DryRunAll)
	}).ShouldNot(Succeed())
}

// user is the manager's name to the API server.
func (w *world) user() string { return "system:serviceaccount:" + w.namespace + ":" + identityName }

// endNamespace deletes the namespace, which stays in that state: what would empty it
// and let it go is not there.
func endNamespace(ctx context.Context, w *world) {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	Expect(admin.Delete(ctx, namespace)).To(Succeed())
	w.awaitRefusal(ctx)
}

// remakeNamespace lets the namespace go and makes it again. What was in it is there still.
func remakeNamespace(ctx context.Context, w *world) {
	GinkgoHelper()
	namespace := &corev1.Namespace{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: w.namespace}, namespace)).To(Succeed())
	namespace.Spec.Finalizers = nil
	Expect(admin.SubResource("finalize").Update(ctx, namespace)).To(Succeed())
	Eventually(ctx, func() bool {
		return apierrors.IsNotFound(admin.Get(ctx, client.ObjectKey{Name: w.namespace}, &corev1.Namespace{}))
	}).Should(BeTrue())
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(Succeed())
}

// denyWrites has admission deny all writes by the manager of Secrets that do not
// fulfil the expression.
func denyWrites(expression string) func(context.Context, *world) {
	return func(ctx context.Context, w *world) {
		GinkgoHelper()
		every := metav1.LabelSelector{}
		fail, equivalent := admissionv1.Fail, admissionv1.Equivalent
		policy := &admissionv1.ValidatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				FailurePolicy: &fail,
				MatchConstraints: &admissionv1.MatchResources{
					NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.namespace}},
					ObjectSelector:    &every, MatchPolicy: &equivalent,
					ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
						Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
						Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
					}}},
				},
				MatchConditions: []admissionv1.MatchCondition{{
					Name: "the-manager", Expression: fmt.Sprintf("request.userInfo.username == %q", w.user()),
				}},
				Validations: []admissionv1.Validation{{Expression: expression, Message: "not today"}},
			},
		}
		binding := &admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: w.namespace, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			},
		}
		Expect(admin.Create(ctx, policy)).To(Succeed())
		Expect(admin.Create(ctx, binding)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { permitWrites(ctx, w) })
		w.awaitRefusal(ctx)
	}
}

func permitWrites(ctx context.Context, w *world) {
	GinkgoHelper()
	name := metav1.ObjectMeta{Name: w.namespace}
	Expect(client.IgnoreNotFound(admin.Delete(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: name}))).To(Succeed())
	Expect(client.IgnoreNotFound(admin.Delete(ctx, &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: name}))).To(Succeed())
}
