package env

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// minTokenLifetime is the shortest that the TokenRequest API grants.
const minTokenLifetime = 10 * time.Minute

// TokenFile is a file with a token of a ServiceAccount.
type TokenFile struct {
	Path           string
	ServiceAccount client.ObjectKey
	Lifetime       time.Duration
}

// Write puts a fresh token into the file. A reader sees the old token or the new
// one, never a part.
func (t TokenFile) Write(ctx context.Context, admin client.Client) error {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: ptr.To(int64(max(t.Lifetime, minTokenLifetime).Seconds())),
	}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: t.ServiceAccount.Namespace, Name: t.ServiceAccount.Name}}
	if err := admin.SubResource("token").Create(ctx, account, request); err != nil {
		return fmt.Errorf("requesting a token of ServiceAccount %s: %w", t.ServiceAccount, err)
	}
	unfinished := t.Path + ".unfinished"
	if err := os.WriteFile(unfinished, []byte(request.Status.Token), 0o600); err != nil {
		return err
	}
	return os.Rename(unfinished, t.Path)
}

// Keep renews the token until done is closed, twice in its life, so that one failure does no harm.
func (t TokenFile) Keep(done <-chan struct{}, admin client.Client, report func(error)) {
	ticker := time.NewTicker(t.Lifetime * 2 / 5)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			if err := t.Write(context.Background(), admin); err != nil {
				report(err)
			}
		}
	}
}

// WriteKubeconfig writes a kubeconfig that leads to the server of an
// administrator's config and identifies itself with the token in a file, which
// may be renewed at any time.
func WriteKubeconfig(path string, admin *rest.Config, namespace, tokenFile string) error {
	const name = "test"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: admin.Host, CertificateAuthorityData: admin.CAData}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{TokenFile: tokenFile}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	config.CurrentContext = name
	return clientcmd.WriteToFile(*config, path)
}

// accountToken is the file of a ServiceAccount's token next to a kubeconfig that uses it.
func accountToken(serviceAccount client.ObjectKey, dir string) TokenFile {
	return TokenFile{Path: filepath.Join(dir, "token"), ServiceAccount: serviceAccount, Lifetime: time.Hour}
}

// ServiceAccountKubeconfig writes a token of a ServiceAccount that exists, and a
// kubeconfig that uses it, into dir. It returns the kubeconfig's path.
func (c *ControlPlane) ServiceAccountKubeconfig(
	ctx context.Context, admin client.Client, serviceAccount client.ObjectKey, dir string,
) (string, error) {
	token := accountToken(serviceAccount, dir)
	if err := token.Write(ctx, admin); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kubeconfig")
	return path, WriteKubeconfig(path, c.config, serviceAccount.Namespace, token.Path)
}

// GrantManager applies what the operator makes for the identity of the API Key Manager of a
// Headscale, with the default settings: its ServiceAccount, of the Headscale's name, and its
// rights. There need be no such Headscale.
func GrantManager(ctx context.Context, admin client.Client, name client.ObjectKey) error {
	owner := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, UID: "0"}}
	owner.Spec.Version = serverbuild.DefaultHeadscale
	owner.Spec.Config.ServerURL = "https://headscale.example.com"
	objects, err := resources.Build(owner, resources.Options{ManagerImage: ManagerImage})
	if err != nil {
		return err
	}
	for _, wanted := range []runtime.ApplyConfiguration{objects.ServiceAccount, objects.Role, objects.RoleBinding} {
		if err := admin.Apply(ctx, wanted, client.FieldOwner("test"), client.ForceOwnership); err != nil {
			return fmt.Errorf("granting the rights of the API Key Manager in namespace %s: %w", name.Namespace, err)
		}
	}
	return nil
}
