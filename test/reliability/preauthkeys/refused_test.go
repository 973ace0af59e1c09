package preauthkeys_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// refusalTime is how long a refusal lasts at least: several attempts.
const refusalTime = 3 * time.Second

// operatorUser is the operator's name to the API server.
const operatorUser = "system:serviceaccount:headscale-operator-system:headscale-operator-controller-manager"

// refusal is a reason for the API server to say no to a write of a Secret, and permit ends it.
type refusal struct {
	failure        string
	refuse, permit func(ctx context.Context, t *tailnet)
	// doing is what the operator has to do meanwhile.
	doing []string
	// created is how many keys may be made meanwhile.
	created int
	labels  Labels
}

// What an operator does: it makes the first key of an object, or replaces one because its Secret was
// deleted, or another one is asked for.
const (
	firstKey    = "first key"
	afterDelete = "Secret deleted"
	replacement = "replacement"
)

var refusals = []refusal{
	{"no right to write Secrets", withdrawRights, restoreRights, []string{firstKey, replacement}, 0, nil},
	{"quota exceeded", setQuota, removeQuota, []string{firstKey, afterDelete}, 0, Label(slow)},
	{"admission denies every write", denyWrites("false"), permitWrites, []string{firstKey, replacement}, 0, nil},
	{"admission denies only to store the key", denyWrites("!has(object.data) || !('key' in object.data)"), permitWrites, []string{firstKey}, 1, Label(slow)},
	{"namespace terminating", endNamespace, remakeNamespace, []string{afterDelete}, 0, Label(slow)},
}

var _ = Describe("When the API server refuses a write, an operator", func() {
	for _, r := range refusals {
		try := func(ctx context.Context, releases []string) {
			o := newOperators(ctx)
			o.turnTo(world.Plane.Config()) // The proxy may hang on a refusal that comes before the end of a request.
			for _, t := range newTailnets(ctx, o, releases) {
				makeKeysAfterRefusal(ctx, t, r)
			}
		}
		text := "makes no key that cannot be stored, and one when it can: " + r.failure
		It(text, r.labels, func(ctx SpecContext) { try(ctx, newest()) })
		It(text+", with older Headscales", Label(slow), func(ctx SpecContext) { try(ctx, older()) })
	}
})

func makeKeysAfterRefusal(ctx context.Context, t *tailnet, r refusal) {
	GinkgoHelper()
	objects, keys, before := map[string]*object{}, map[string]string{}, map[string]int{}
	for i, doing := range r.doing {
		k := &object{t, fmt.Sprintf("web-%d", i)}
		objects[doing] = k
		k.makeUser(ctx)
		if doing != firstKey {
			k.set(ctx)
			keys[doing], _ = k.heals(ctx)
		}
		Eventually(k.user).WithContext(ctx).WithArguments(ctx).ShouldNot(BeZero())
		before[doing] = k.made(ctx)
	}
	r.refuse(ctx, t)
	for doing, k := range objects {
		k.begin(ctx, doing)
	}
	Consistently(func(g Gomega) {
		for doing, k := range objects {
			g.Expect(k.made(ctx)-before[doing]).To(BeNumerically("<=", r.created), doing)
		}
	}).WithContext(ctx).WithTimeout(refusalTime).WithPolling(100 * time.Millisecond).Should(Succeed())
	r.permit(ctx, t)
	for doing, k := range objects {
		_, took := k.healsFrom(ctx, keys[doing])
		Expect(k.made(ctx)-before[doing]).To(BeNumerically("<=", r.created+1), doing)
		k.opens(ctx)
		seen(r.failure+": "+doing, t.version, took)
	}
}

// begin gives the operator something to do.
func (k *object) begin(ctx context.Context, doing string) {
	GinkgoHelper()
	switch doing {
	case firstKey:
		k.set(ctx)
	case afterDelete:
		Expect(admin.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: k.t.namespace, Name: k.name}})).To(Succeed())
	case replacement:
		k.set(ctx, "ephemeral: true")
	}
}

// managerRole is the operator's ClusterRole.
const managerRole = "headscale-operator-manager-role"

// setVerbs changes the verbs that the operator has on Secrets.
func setVerbs(ctx context.Context, change func(verbs []string) []string) {
	GinkgoHelper()
	role := &rbacv1.ClusterRole{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: managerRole}, role)).To(Succeed())
	for i := range role.Rules {
		if slices.Contains(role.Rules[i].Resources, "secrets") {
			role.Rules[i].Verbs = change(role.Rules[i].Verbs)
		}
	}
	Expect(admin.Update(ctx, role)).To(Succeed())
}

// writing are the verbs by which the operator writes Secrets.
var writing = []string{"create", "patch"}

func withdrawRights(ctx context.Context, t *tailnet) {
	GinkgoHelper()
	setVerbs(ctx, func(verbs []string) []string {
		return slices.DeleteFunc(verbs, func(verb string) bool { return slices.Contains(writing, verb) })
	})
	DeferCleanup(func(ctx SpecContext) { restoreRights(ctx, t) })
	t.awaitRefusal(ctx, true)
}

func restoreRights(ctx context.Context, t *tailnet) {
	GinkgoHelper()
	setVerbs(ctx, func(verbs []string) []string {
		verbs = append(verbs, writing...)
		slices.Sort(verbs)
		return slices.Compact(verbs)
	})
	t.awaitRefusal(ctx, false)
}

// awaitRefusal waits until the API server refuses the operator's writes, or does not any more.
func (t *tailnet) awaitRefusal(ctx context.Context, refused bool) {
	GinkgoHelper()
	config := world.Plane.Config()
	config.Impersonate.UserName = operatorUser
	operator, err := client.New(config, client.Options{Scheme: admin.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	Eventually(func() bool {
		try := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: t.namespace, GenerateName: "try-"}, Data: map[string][]byte{"key": []byte("thing")}}
		return operator.Create(ctx, try, client.DryRunAll) != nil
	}).WithContext(ctx).Should(Equal(refused))
}

// setQuota makes a quota as the controller would leave it, which is not there.
func setQuota(ctx context.Context, t *tailnet) {
	GinkgoHelper()
	hard := corev1.ResourceList{corev1.ResourceSecrets: resource.MustParse("0")}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: t.namespace, Name: "no-secrets"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	Expect(admin.Create(ctx, quota)).To(Succeed())
	quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: hard}
	Expect(admin.Status().Update(ctx, quota)).To(Succeed())
	t.awaitRefusal(ctx, true)
}

func removeQuota(ctx context.Context, t *tailnet) {
	GinkgoHelper()
	Expect(admin.Delete(ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: t.namespace, Name: "no-secrets"}})).To(Succeed())
	t.awaitRefusal(ctx, false)
}

// denyWrites has admission deny all writes by the operator of Secrets that do not fulfil the
// expression.
func denyWrites(expression string) func(context.Context, *tailnet) {
	return func(ctx context.Context, t *tailnet) {
		GinkgoHelper()
		fail, equivalent, every := admissionv1.Fail, admissionv1.Equivalent, &metav1.LabelSelector{}
		policy := &admissionv1.ValidatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: t.namespace},
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				FailurePolicy: &fail,
				MatchConstraints: &admissionv1.MatchResources{
					NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: t.namespace}},
					ObjectSelector:    every, MatchPolicy: &equivalent,
					ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
						Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
						Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
					}}},
				},
				MatchConditions: []admissionv1.MatchCondition{{Name: "the-operator", Expression: fmt.Sprintf("request.userInfo.username == %q", operatorUser)}},
				Validations:     []admissionv1.Validation{{Expression: expression, Message: "not today"}},
			},
		}
		binding := &admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: t.namespace},
			Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: t.namespace, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
		}
		Expect(admin.Create(ctx, policy)).To(Succeed())
		Expect(admin.Create(ctx, binding)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { permitWrites(ctx, t) })
		t.awaitRefusal(ctx, true)
	}
}

func permitWrites(ctx context.Context, t *tailnet) {
	GinkgoHelper()
	name := metav1.ObjectMeta{Name: t.namespace}
	Expect(client.IgnoreNotFound(admin.Delete(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: name}))).To(Succeed())
	Expect(client.IgnoreNotFound(admin.Delete(ctx, &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: name}))).To(Succeed())
}

// endNamespace deletes the namespace, which stays in that state: what would empty it and let it go
// is not there.
func endNamespace(ctx context.Context, t *tailnet) {
	GinkgoHelper()
	Expect(admin.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: t.namespace}})).To(Succeed())
	t.awaitRefusal(ctx, true)
}

// remakeNamespace lets the namespace go and makes it again. What was in it is there still.
func remakeNamespace(ctx context.Context, t *tailnet) {
	GinkgoHelper()
	namespace := &corev1.Namespace{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: t.namespace}, namespace)).To(Succeed())
	namespace.Spec.Finalizers = nil
	Expect(admin.SubResource("finalize").Update(ctx, namespace)).To(Succeed())
	Eventually(func() bool {
		return apierrors.IsNotFound(admin.Get(ctx, client.ObjectKey{Name: t.namespace}, &corev1.Namespace{}))
	}).WithContext(ctx).Should(BeTrue())
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: t.namespace}})).To(Succeed())
	t.awaitRefusal(ctx, false)
}
