// Package instancetest is what the suites of all kinds within a Headscale share: a Kubernetes API
// server, operators of one kind with the rights that they are shipped with, and Headscales with
// all that an operator finds them by. Only tests import it.
package instancetest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// operatorUser is who the operator is in these suites: a user with the rights of
// config/rbac/role.yaml and no others.
const operatorUser = "system:serviceaccount:headscale-operator-system:controller-manager"

// Cluster is a Kubernetes API server with the CRDs and the operator's role, and what starts real
// Headscales. It is usable after Start.
type Cluster struct {
	// Config is that of the user of a cluster.
	Config *rest.Config
	// Admin acts as that user. It refuses unknown fields, as kubectl does.
	Admin  client.Client
	Scheme *runtime.Scheme
	Guard  *process.Guard

	name  string
	root  string
	built serverbuild.Servers
}

// Run runs the specs of a suite.
func Run(t *testing.T, description string) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(time.Minute)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	SetDefaultConsistentlyDuration(time.Second)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, description)
}

// Start starts the cluster for one suite. Its namespaces and directories begin with a short name.
func (c *Cluster) Start(ctx context.Context, name string) {
	GinkgoHelper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		Fail("these tests need a kube-apiserver: run `make test`, which builds one and sets KUBEBUILDER_ASSETS")
	}
	log.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(GinkgoWriter, nil)))
	c.name = name
	c.findServers()
	c.startAPIServer()
	c.grantOperatorItsRole(ctx)
}

// findServers finds what `make test` has built.
func (c *Cluster) findServers() {
	GinkgoHelper()
	var err error
	c.root, err = serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	versions, err := serverbuild.HeadscaleVersions(c.root)
	Expect(err).NotTo(HaveOccurred())
	c.built, err = serverbuild.Find(serverbuild.Options{Root: c.root, Headscale: versions})
	Expect(err).NotTo(HaveOccurred())
	c.Guard, err = process.NewGuard("hs-" + c.name + "-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(c.Guard.Close)
}

// startAPIServer starts the control plane.
func (c *Cluster) startAPIServer() {
	GinkgoHelper()
	environment := &envtest.Environment{
		CRDDirectoryPaths: []string{filepath.Join(c.root, "config", "crd", "bases")}, ErrorIfCRDPathMissing: true,
		ControlPlaneStartTimeout: 2 * time.Minute, ControlPlaneStopTimeout: 2 * time.Minute, // on a busy machine
	}
	var err error
	c.Config, err = environment.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(environment.Stop)
	c.Config.QPS = -1
	c.Scheme = runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(c.Scheme)).To(Succeed())
	Expect(v1beta1.AddToScheme(c.Scheme)).To(Succeed())
	unchecked, err := client.New(c.Config, client.Options{Scheme: c.Scheme})
	Expect(err).NotTo(HaveOccurred())
	c.Admin = client.WithFieldValidation(unchecked, metav1.FieldValidationStrict)
}

// OperatorRole reads the ClusterRole that the operator is shipped with.
func (c *Cluster) OperatorRole() *rbacv1.ClusterRole {
	GinkgoHelper()
	raw, err := os.ReadFile(filepath.Join(c.root, "config", "rbac", "role.yaml"))
	Expect(err).NotTo(HaveOccurred())
	role := &rbacv1.ClusterRole{}
	Expect(yaml.UnmarshalStrict(raw, role)).To(Succeed())
	return role
}

// grantOperatorItsRole installs the ClusterRole that the operator is shipped with.
func (c *Cluster) grantOperatorItsRole(ctx context.Context) {
	GinkgoHelper()
	role := c.OperatorRole()
	Expect(c.Admin.Create(ctx, role)).To(Succeed())
	Expect(c.Admin.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: operatorUser}},
	})).To(Succeed())
}

// NewNamespace creates a namespace with labels, each as key=value.
func (c *Cluster) NewNamespace(ctx context.Context, labels ...string) string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: c.name + "-", Labels: map[string]string{}}}
	for _, label := range labels {
		key, value, _ := strings.Cut(label, "=")
		namespace.Labels[key] = value
	}
	Expect(c.Admin.Create(ctx, namespace)).To(Succeed())
	return namespace.Name
}

// Apply applies a manifest.
func (c *Cluster) Apply(ctx context.Context, namespace, manifest string) {
	GinkgoHelper()
	Expect(c.Send(ctx, namespace, manifest)).To(Succeed())
}

// Send applies a manifest, and returns the refusal.
func (c *Cluster) Send(ctx context.Context, namespace, manifest string) error {
	object := &unstructured.Unstructured{}
	if err := yaml.UnmarshalStrict([]byte(manifest), &object.Object); err != nil {
		return err
	}
	object.SetNamespace(namespace)
	return c.Admin.Patch(ctx, object, client.Apply, client.FieldOwner("test"), client.ForceOwnership) //nolint:staticcheck // of any kind
}

// Events are the reasons and messages of the events about an object. An empty kind is any.
func (c *Cluster) Events(ctx context.Context, kind, namespace, name string) func(g Gomega) []string {
	return func(g Gomega) []string {
		listed := &corev1.EventList{}
		g.Expect(c.Admin.List(ctx, listed, client.InNamespace(namespace))).To(Succeed())
		var reasons []string
		for i := range listed.Items {
			e := &listed.Items[i]
			if about := e.InvolvedObject; about.Name == name && (kind == "" || about.Kind == kind) {
				reasons = append(reasons, e.Reason+": "+e.Message)
			}
		}
		return reasons
	}
}

// StartHeadscale starts a real Headscale for one container of specs. The config may be nil.
func (c *Cluster) StartHeadscale(ctx context.Context, version string, config map[string]any) *env.Headscale {
	GinkgoHelper()
	hs, err := env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: c.built.Headscale[version], Guard: c.Guard, Output: GinkgoWriter, Config: config})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(hs.Stop)
	return hs
}

// Get reads an object of the type T, such as v1beta1.HeadscaleUser; nil: there is none.
func Get[T any, O interface {
	*T
	client.Object
}](ctx context.Context, c *Cluster, namespace, name string) func(g Gomega) *T {
	return func(g Gomega) *T {
		object := O(new(T))
		err := c.Admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object)
		if client.IgnoreNotFound(err) == nil && err != nil {
			return nil
		}
		g.Expect(err).NotTo(HaveOccurred())
		return object
	}
}

// Ready is the text of the condition Ready, such as "True Ready: all is done"; empty: there is none.
func Ready(conditions []metav1.Condition) string {
	for _, c := range conditions {
		if c.Type == v1beta1.ConditionReady {
			return string(c.Status) + " " + c.Reason + ": " + c.Message
		}
	}
	return ""
}
