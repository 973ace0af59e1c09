package integration_test

import (
	"context"
	"os"
	"reflect"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("The sidecar's token", Ordered, func() {
	var (
		hs      *server
		sidecar client.Client
	)

	BeforeAll(func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs = runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)

		// The very token that is in the pod.
		path := hs.pod.HostPath(containerManager, "/var/run/secrets/kubernetes.io/serviceaccount/token")
		token, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		sidecar = actingWith(string(token))
	})

	It("is only in the sidecar", func() {
		Expect(hs.pod.HostPath(containerHeadscale, "/var/run/secrets/kubernetes.io/serviceaccount/token")).
			To(HavePrefix("/var/run/secrets/"), "Headscale's container has no such volume")
	})

	It("allows what the API Key Manager needs, and nothing that it does not", func(ctx SpecContext) {
		nobody := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: hs.key.Namespace, Name: "nobody"}}
		Expect(admin.Create(ctx, nobody)).To(Succeed())
		request := &authenticationv1.TokenRequest{}
		Expect(admin.SubResource("token").Create(ctx, nobody, request)).To(Succeed())
		everybodys := rulesOf(ctx, actingWith(request.Status.Token), hs.key.Namespace)
		Expect(everybodys).NotTo(BeEmpty())
		own := rulesOf(ctx, sidecar, hs.key.Namespace)
		own = slices.DeleteFunc(own, func(rule authorizationv1.ResourceRule) bool {
			return slices.ContainsFunc(everybodys, func(other authorizationv1.ResourceRule) bool { return reflect.DeepEqual(rule, other) })
		})
		Expect(own).To(ConsistOf(
			authorizationv1.ResourceRule{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"secrets"}},
			And(
				HaveField("Verbs", ConsistOf("get", "watch", "update", "patch")), HaveField("APIGroups", ConsistOf("")),
				HaveField("Resources", ConsistOf("secrets")), HaveField("ResourceNames", ConsistOf(secretName)),
			),
		))
	})

	It("is refused where it tries more", func(ctx SpecContext) {
		namespace := hs.key.Namespace
		foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "foreign"}}
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		elsewhere := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(ctx), Name: secretName}}
		own := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secretName}}
		headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "headscale"}}
		nothing := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`))
		for name, try := range map[string]func(context.Context) error{
			"reading another Secret":  func(ctx context.Context) error { return sidecar.Get(ctx, client.ObjectKeyFromObject(foreign), foreign) },
			"changing another Secret": func(ctx context.Context) error { return sidecar.Patch(ctx, foreign, nothing) },
			"listing Secrets": func(ctx context.Context) error {
				return sidecar.List(ctx, &corev1.SecretList{}, client.InNamespace(namespace))
			},
			"deleting its Secret":         func(ctx context.Context) error { return sidecar.Delete(ctx, own) },
			"creating a Secret elsewhere": func(ctx context.Context) error { return sidecar.Create(ctx, elsewhere) },
			"reading ConfigMaps": func(ctx context.Context) error {
				return sidecar.List(ctx, &corev1.ConfigMapList{}, client.InNamespace(namespace))
			},
			"reading Pods": func(ctx context.Context) error {
				return sidecar.List(ctx, &corev1.PodList{}, client.InNamespace(namespace))
			},
			"changing its own Role":     func(ctx context.Context) error { return sidecar.Patch(ctx, roleOf(hs), nothing) },
			"changing its own resource": func(ctx context.Context) error { return sidecar.Patch(ctx, headscale, nothing) },
			"making itself another token": func(ctx context.Context) error {
				return sidecar.SubResource("token").Create(ctx, accountOf(hs), &authenticationv1.TokenRequest{})
			},
			"reading the namespace itself": func(ctx context.Context) error {
				return sidecar.Get(ctx, client.ObjectKey{Name: namespace}, &corev1.Namespace{})
			},
		} {
			Expect(apierrors.IsForbidden(try(ctx))).To(BeTrue(), name)
		}
		Expect(sidecar.Get(ctx, client.ObjectKeyFromObject(own), own)).To(Succeed())
	})

	It("is worth nothing on a Secret that became somebody else's, and has its rights again when that is gone", func(ctx SpecContext) {
		own := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hs.key.Namespace, Name: secretName}}
		Expect(admin.Patch(ctx, own, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":null}}`)))).To(Succeed())
		Eventually(func() bool { return apierrors.IsForbidden(sidecar.Get(ctx, client.ObjectKeyFromObject(own), own)) }).WithContext(ctx).Should(BeTrue())
		again := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: own.Namespace, Name: own.Name}}
		Eventually(func() error { return sidecar.Create(ctx, again) }).WithContext(ctx).Should(MatchError(apierrors.IsAlreadyExists, "exists already"), "the Role is made again without the Secret's name")
		// Ready is written last, and is still what it was before.
		Eventually(hs.reason).WithContext(ctx).Should(Equal(v1beta1.ReasonConflict))
		Expect(admin.Delete(ctx, own)).To(Succeed())
		hs.awaitReady(ctx)
		Expect(sidecar.Get(ctx, client.ObjectKeyFromObject(own), own)).To(Succeed())
	})
})

// actingWith returns a client that has nothing but a token.
func actingWith(token string) client.Client {
	GinkgoHelper()
	config := rest.AnonymousClientConfig(plane.Config())
	config.BearerToken = token
	result, err := client.New(config, client.Options{Scheme: admin.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return result
}

// rulesOf asks the API server what a client may do in a namespace.
func rulesOf(ctx context.Context, c client.Client, namespace string) []authorizationv1.ResourceRule {
	GinkgoHelper()
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
	Expect(c.Create(ctx, review)).To(Succeed())
	return review.Status.ResourceRules
}

// roleOf names the Role that the operator made for the sidecar.
func roleOf(s *server) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.Name}}
}

// accountOf names the pod's ServiceAccount.
func accountOf(s *server) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.Name}}
}
