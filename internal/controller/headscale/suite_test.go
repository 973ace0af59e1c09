package headscale

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// operatorUser is who the operator is in these tests: a user with the rights of
// config/rbac/role.yaml and no others.
const operatorUser = "system:serviceaccount:headscale-operator-system:controller-manager"

var (
	// adminConfig and admin act as the user of a cluster. The client refuses unknown
	// fields, as kubectl does.
	adminConfig *rest.Config
	admin       client.Client
	scheme      = runtime.NewScheme()
)

func TestController(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "Operator")
}

// connection is what every test process needs to reach the API server.
type connection struct {
	Host              string
	CA, Cert, Private []byte
}

var _ = SynchronizedBeforeSuite(func() []byte {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		Fail("these tests need a kube-apiserver: run `make test`, which builds one and sets KUBEBUILDER_ASSETS")
	}
	environment := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join("..", "..", "..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	// Some clusters ask whoever makes an owner reference that blocks deletion for the
	// right to do so.
	environment.ControlPlane.GetAPIServer().Configure().Append("enable-admission-plugins", "OwnerReferencesPermissionEnforcement")
	// Nothing collects the Services of specs that have ended: all of them together need more
	// addresses than envtest's /24 has.
	environment.ControlPlane.GetAPIServer().Configure().Set("service-cluster-ip-range", "10.0.0.0/16")
	config, err := environment.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(environment.Stop)
	raw, err := json.Marshal(connection{config.Host, config.CAData, config.CertData, config.KeyData})
	Expect(err).NotTo(HaveOccurred())
	connect(raw)
	grantOperatorItsRole(context.Background())
	return raw
}, connect)

// connect makes the clients of one test process.
func connect(raw []byte) {
	log.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(GinkgoWriter, nil)))
	var c connection
	Expect(json.Unmarshal(raw, &c)).To(Succeed())
	adminConfig = &rest.Config{Host: c.Host, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: c.CA, CertData: c.Cert, KeyData: c.Private}}
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(v1beta1.AddToScheme(scheme)).To(Succeed())
	unchecked, err := client.New(adminConfig, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	admin = client.WithFieldValidation(unchecked, metav1.FieldValidationStrict)
}

// grantOperatorItsRole installs the ClusterRole that the operator is shipped with.
func grantOperatorItsRole(ctx context.Context) {
	grant(ctx, shippedRole(), operatorUser)
}

// grant installs a ClusterRole, gives it to a user, and waits until that is in force.
func grant(ctx context.Context, role *rbacv1.ClusterRole, user string) {
	GinkgoHelper()
	Expect(admin.Create(ctx, role)).To(Succeed())
	Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
	})).To(Succeed())
	rule := role.Rules[0]
	Eventually(allowed(ctx, user, authorizationv1.ResourceAttributes{Verb: rule.Verbs[0], Group: rule.APIGroups[0], Resource: rule.Resources[0]})).
		WithContext(ctx).Should(BeTrue())
}

// allowed asks the API server whether a user may do something. It answers from a cache.
func allowed(ctx context.Context, user string, what authorizationv1.ResourceAttributes) func(Gomega) bool {
	return func(g Gomega) bool {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &what}}
		g.Expect(admin.Create(ctx, review)).To(Succeed())
		return review.Status.Allowed
	}
}
