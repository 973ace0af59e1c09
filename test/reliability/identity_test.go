package reliability_test

import (
	"context"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/env"
)

// identityName is the name of the Headscale that a manager belongs to, and so of its
// ServiceAccount, Role and RoleBinding.
const identityName = "headscale"

// newNamespace makes a namespace in which a manager has exactly the rights that the
// operator gives it, and returns its name.
func newNamespace(ctx context.Context) string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "reliability-"}}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
	grantRights(ctx, namespace.Name)
	return namespace.Name
}

// grantRights applies what the operator makes for the manager's identity.
func grantRights(ctx context.Context, namespace string) {
	GinkgoHelper()
	Expect(env.GrantManager(ctx, admin, client.ObjectKey{Namespace: namespace, Name: identityName})).To(Succeed())
}

// writeKubeconfig writes a kubeconfig of the manager's ServiceAccount, by way of the
// server that the config names, into the directory and returns its path.
func writeKubeconfig(ctx context.Context, namespace, dir string, server *rest.Config) string {
	GinkgoHelper()
	account := client.ObjectKey{Namespace: namespace, Name: identityName}
	token, err := env.Token(ctx, admin, account)
	Expect(err).NotTo(HaveOccurred())
	tokenFile, path := filepath.Join(dir, "token"), filepath.Join(dir, "kubeconfig")
	Expect(os.WriteFile(tokenFile, []byte(token), 0o600)).To(Succeed())
	Expect(env.WriteKubeconfig(path, server, namespace, tokenFile)).To(Succeed())
	return path
}
