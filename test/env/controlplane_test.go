package env_test

import (
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/env"
)

var _ = Describe("A control plane", func() {
	It("answers an administrator, and a ServiceAccount with the rights that it has", func(ctx SpecContext) {
		guard := newGuard()
		plane, err := env.StartControlPlane(env.ControlPlaneOptions{
			Servers: findServers(), Guard: guard, Output: GinkgoWriter,
			CRDs: []string{filepath.Join("..", "..", "config", "crd", "bases")},
		})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(plane.Stop)

		By("running kubectl")
		Expect(plane.Kubectl(ctx, "get", "crd", "-o", "name")).To(ContainSubstring("headscales.headscale.infrado.cloud"))
		_, err = plane.Kubectl(ctx, "get", "nonsense")
		Expect(err).To(MatchError(ContainSubstring("the server doesn't have a resource type")))

		By("acting as a ServiceAccount without a role")
		admin, err := client.New(plane.Config(), client.Options{})
		Expect(err).NotTo(HaveOccurred())
		key := client.ObjectKey{Namespace: "default", Name: "nobody"}
		Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}})).To(Succeed())
		path, err := plane.ServiceAccountKubeconfig(ctx, admin, key, GinkgoT().TempDir())
		Expect(err).NotTo(HaveOccurred())
		config, err := clientcmd.BuildConfigFromFlags("", path)
		Expect(err).NotTo(HaveOccurred())
		nobody, err := client.New(config, client.Options{})
		Expect(err).NotTo(HaveOccurred())
		err = nobody.List(ctx, &corev1.SecretList{}, client.InNamespace("default"))
		Expect(apierrors.IsForbidden(err)).To(BeTrue())
		Expect(err).To(MatchError(ContainSubstring("system:serviceaccount:default:nobody")))
	})
})
