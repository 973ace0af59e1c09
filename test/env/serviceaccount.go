package env

import (
	"context"
	"errors"
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

// tokenLifetime is longer than anything of a test runs: nobody renews tokens here.
const tokenLifetime = 24 * time.Hour

// Token is a fresh token of a ServiceAccount.
func Token(ctx context.Context, admin client.Client, serviceAccount client.ObjectKey) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: ptr.To(int64(tokenLifetime.Seconds())),
	}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: serviceAccount.Namespace, Name: serviceAccount.Name}}
	if err := admin.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("requesting a token of ServiceAccount %s: %w", serviceAccount, err)
	}
	return request.Status.Token, nil
}

// WriteKubeconfig writes a kubeconfig that leads to the server of an
// administrator's config and identifies itself with the token in a file.
func WriteKubeconfig(path string, admin *rest.Config, namespace, tokenFile string) error {
	const name = "test"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: admin.Host, CertificateAuthorityData: admin.CAData}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{TokenFile: tokenFile}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	config.CurrentContext = name
	return clientcmd.WriteToFile(*config, path)
}

// ServiceAccountKubeconfig writes a token of a ServiceAccount that exists, and a
// kubeconfig that uses it, into dir. It returns the kubeconfig's path.
func (c *ControlPlane) ServiceAccountKubeconfig(
	ctx context.Context, admin client.Client, serviceAccount client.ObjectKey, dir string,
) (string, error) {
	path, tokenFile := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "token")
	token, err := Token(ctx, admin, serviceAccount)
	if err != nil {
		return "", err
	}
	return path, errors.Join(
		os.WriteFile(tokenFile, []byte(token), 0o600), WriteKubeconfig(path, c.config, serviceAccount.Namespace, tokenFile))
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
