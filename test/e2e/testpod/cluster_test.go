package main

import (
	"context"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/env"
)

// The Secret of these tests, and the ServiceAccount that may use it.
const secretName, accountName = "key", "killer"

// inCluster starts an API server with a Secret, and returns the directory of a container that
// may read, watch and patch it.
func inCluster(t *testing.T) (files string, admin client.Client) {
	t.Helper()
	g := NewWithT(t)
	world, err := env.NewWorld("testpod-", nil, "v0.29.3")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { NewWithT(t).Expect(world.Close()).To(Succeed()) })
	g.Expect(world.StartPlane(nil)).To(Succeed())
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	for _, object := range []client.Object{
		&corev1.Secret{ObjectMeta: meta(secretName)},
		&corev1.ServiceAccount{ObjectMeta: meta(accountName)},
		&rbacv1.Role{ObjectMeta: meta(accountName), Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{secretName}, Verbs: []string{"get", "watch", "patch"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: meta(accountName), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: accountName},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: accountName}},
		},
	} {
		g.Expect(world.Admin.Create(t.Context(), object)).To(Succeed())
	}
	address, err := url.Parse(world.Plane.Config().Host)
	g.Expect(err).NotTo(HaveOccurred())
	t.Setenv("KUBERNETES_SERVICE_HOST", address.Hostname())
	t.Setenv("KUBERNETES_SERVICE_PORT", address.Port())
	files = t.TempDir()
	dir := filepath.Join(files, serviceAccount)
	g.Expect(os.MkdirAll(dir, 0o750)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "ca.crt"), world.Plane.Config().CAData, 0o600)).To(Succeed())
	account := client.ObjectKey{Namespace: "default", Name: accountName}
	token, err := env.Token(t.Context(), world.Admin, account)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600)).To(Succeed())
	return files, world.Admin
}

// printed is what a command prints.
func printed(t *testing.T, command func(context.Context, []string) error, args ...string) string {
	t.Helper()
	g := NewWithT(t)
	reader, writer, err := os.Pipe()
	g.Expect(err).NotTo(HaveOccurred())
	stdout := os.Stdout
	os.Stdout = writer
	err = command(t.Context(), args)
	os.Stdout = stdout
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(writer.Close()).To(Succeed())
	text, err := io.ReadAll(reader)
	g.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

func TestTheClusterIsAskedWithAContainersToken(t *testing.T) {
	g := NewWithT(t)
	files, admin := inCluster(t)
	// The authorizer learns of the binding a moment after it was made.
	g.Eventually(func() string { return printed(t, get, files, "/api/v1/namespaces/default/secrets/"+secretName) }).
		WithTimeout(time.Minute).Should(MatchJSON(`{"status": 200, "token": true}`))
	g.Expect(printed(t, get, files, "/api/v1/namespaces/default/secrets")).To(MatchJSON(`{"status": 403, "token": true}`))
	g.Expect(printed(t, get, t.TempDir(), "/api/v1/namespaces/default/secrets")).To(MatchJSON(`{"status": 403, "token": false}`))

	secrets, name, err := secretIn(files, "default/"+secretName)
	g.Expect(err).NotTo(HaveOccurred())
	before, err := secrets.Get(t.Context(), name, metav1.GetOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	marked := make(chan error, 1)
	i := &interruption{request: "example.com/rotate=now", mark: "example.com/mark"}
	go func() { marked <- i.awaitMark(t.Context(), secrets, before) }()
	secret := &corev1.Secret{}
	g.Eventually(func(g Gomega) {
		g.Expect(admin.Get(t.Context(), client.ObjectKeyFromObject(before), secret)).To(Succeed())
		g.Expect(secret.Annotations).To(HaveKeyWithValue("example.com/rotate", "now"))
	}).WithTimeout(time.Minute).Should(Succeed())
	g.Expect(marked).NotTo(Receive(), "there is no mark yet")
	secret.Annotations["example.com/mark"] = "one"
	g.Expect(admin.Update(t.Context(), secret)).To(Succeed())
	g.Eventually(marked).WithTimeout(time.Minute).Should(Receive(Succeed()))
}
