package plugin

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// What the specs share: an API server on which the operator is installed and does not
// run, so that the specs write what it would.
var (
	plane *env.ControlPlane
	admin client.Client
	// withoutKind is what status says where the operator was never installed.
	withoutKind result
	// withoutKinds is the same of the kinds within a Headscale, by command.
	withoutKinds = map[string]result{}
)

func TestPlugin(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	completionTimeout = time.Minute // or a pause of a busy machine leaves nothing to offer
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "kubectl headscale")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	root, err := serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	servers, err := serverbuild.Find(serverbuild.Options{Root: root})
	Expect(err).NotTo(HaveOccurred())
	guard, err := process.NewGuard("plugin-test-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return guard.Close() })
	plane, err = env.StartControlPlane(env.ControlPlaneOptions{Servers: servers, Guard: guard})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return plane.Stop() })
	withoutKind = as(ctx, plane.Kubeconfig(), "status", "-A")
	for _, command := range []string{"users", "preauthkeys"} {
		withoutKinds[command] = as(ctx, plane.Kubeconfig(), command, "-A")
	}

	scheme := runtime.NewScheme()
	Expect(errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme))).To(Succeed())
	admin, err = client.New(plane.Config(), client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	Expect(plane.InstallOperator(ctx, root)).To(Succeed())
})

// result is what a run of the plugin came to.
type result struct {
	Stdout, Stderr string
	Status         int
}

// as runs the plugin with a kubeconfig, as of now.
func as(ctx context.Context, kubeconfig string, args ...string) result {
	var stdout, stderr bytes.Buffer
	status := Run(ctx, append([]string{"--kubeconfig", kubeconfig}, args...), Environment{
		Streams: genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &stdout, ErrOut: &stderr},
		Getenv:  variables(nil), Now: time.Now, Build: Build{"dev", "unknown", "unknown"},
	})
	return result{stdout.String(), stderr.String(), status}
}

// run runs the plugin as an administrator in a namespace.
func run(ctx context.Context, namespace string, args ...string) result {
	return as(ctx, plane.Kubeconfig(), append([]string{"-n", namespace}, args...)...)
}

// newNamespace makes a namespace and returns its name.
func newNamespace(ctx context.Context) string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "plugin-"}}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
	return namespace.Name
}

// person makes somebody with the rules of ClusterRoles, in one namespace, and returns
// their kubeconfig, which names that namespace.
func person(ctx context.Context, namespace string, roles ...string) string {
	GinkgoHelper()
	// Everybody has a name of their own: the authorizer would know the rights of a former one for a while.
	created := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "person-"}}
	Expect(admin.Create(ctx, created)).To(Succeed())
	account := client.ObjectKeyFromObject(created)
	for _, role := range roles {
		Expect(admin.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "person-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: account.Name}},
		})).To(Succeed())
		granted := &rbacv1.ClusterRole{}
		Expect(admin.Get(ctx, client.ObjectKey{Name: role}, granted)).To(Succeed())
		awaitRights(ctx, "system:serviceaccount:"+namespace+":"+account.Name, namespace, granted.Rules)
	}
	kubeconfig, err := plane.ServiceAccountKubeconfig(ctx, admin, account, GinkgoT().TempDir())
	Expect(err).NotTo(HaveOccurred())
	return kubeconfig
}

// awaitRights waits until the API server's authorizer knows that a user has the rights of a role, which
// it learns a moment after the binding was made. Of each rule it asks for the first verb and resource.
func awaitRights(ctx context.Context, user, namespace string, role []rbacv1.PolicyRule) {
	GinkgoHelper()
	for _, rule := range role {
		Eventually(func() (bool, error) {
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: namespace, Verb: rule.Verbs[0], Group: rule.APIGroups[0], Resource: rule.Resources[0]}}}
			err := admin.Create(ctx, review)
			return review.Status.Allowed, err
		}).WithContext(ctx).WithTimeout(time.Minute).Should(BeTrue())
	}
}

// Roles of persons. The cluster's own edit and view are put together of the first two of
// each, and of what the operator's installation adds, by a controller that does not run
// here.
var (
	editor = []string{"system:aggregate-to-edit", "system:aggregate-to-view", "headscale-operator-headscale-editor-role"}
	viewer = []string{"system:aggregate-to-view", "headscale-operator-headscale-viewer-role"}
)
