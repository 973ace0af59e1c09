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
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// MinTokenLifetime is the shortest that the TokenRequest API grants.
const MinTokenLifetime = 10 * time.Minute

// NewToken asks the TokenRequest API for a token of a ServiceAccount.
func NewToken(ctx context.Context, admin client.Client, serviceAccount client.ObjectKey, lifetime time.Duration) (string, error) {
	lifetime = max(lifetime, MinTokenLifetime)
	seconds := int64(lifetime.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: serviceAccount.Namespace, Name: serviceAccount.Name}}
	if err := admin.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("requesting a token of ServiceAccount %s: %w", serviceAccount, err)
	}
	return request.Status.Token, nil
}

// WriteTokenFile puts a fresh token of a ServiceAccount into a file. A reader
// sees the old token or the new one, never a part.
func WriteTokenFile(ctx context.Context, admin client.Client, serviceAccount client.ObjectKey, lifetime time.Duration, path string) error {
	token, err := NewToken(ctx, admin, serviceAccount, lifetime)
	if err != nil {
		return err
	}
	unfinished := path + ".unfinished"
	if err := os.WriteFile(unfinished, []byte(token), 0o600); err != nil {
		return err
	}
	return os.Rename(unfinished, path)
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

// tokenFileName is the name of the token next to a kubeconfig that uses it.
const tokenFileName = "token"

// ServiceAccountKubeconfig writes a token of a ServiceAccount that exists, and a
// kubeconfig that uses it, into dir. It returns the kubeconfig's path.
func (c *ControlPlane) ServiceAccountKubeconfig(ctx context.Context, admin client.Client, serviceAccount client.ObjectKey, dir string) (string, error) {
	tokenFile := filepath.Join(dir, tokenFileName)
	if err := WriteTokenFile(ctx, admin, serviceAccount, time.Hour, tokenFile); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kubeconfig")
	return path, WriteKubeconfig(path, c.config, serviceAccount.Namespace, tokenFile)
}
