package apikey

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"infrado.cloud/headscale-operator/internal/rotation"
)

// namespaceFile is where Kubernetes tells a pod its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// DefaultNamespace is the namespace where none is given: POD_NAMESPACE, then that
// of the pod's ServiceAccount; empty outside a pod.
func DefaultNamespace() string {
	if namespace := os.Getenv("POD_NAMESPACE"); namespace != "" {
		return namespace
	}
	content, err := os.ReadFile(namespaceFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content))
}

// NewTag returns the tag of the keys of one Secret in one cluster. Two clusters can have a
// Secret of the same name each for a Headscale on the same database, so the tag follows from
// what distinguishes clusters, too: the certificates by which the API server is known, or
// its address if there are none. That of earlier versions followed from the name alone.
func NewTag(cluster *rest.Config, namespace, secretName string) (rotation.Tag, error) {
	cluster = rest.CopyConfig(cluster)
	if err := rest.LoadTLSFiles(cluster); err != nil {
		return rotation.Tag{}, fmt.Errorf("reading the certificates of the API server: %w", err)
	}
	identity := strings.TrimSpace(string(cluster.CAData))
	secret := namespace + "/" + secretName
	return rotation.NewTag(secret + "/" + cmp.Or(identity, cluster.Host)).After(rotation.NewTag(secret)), nil
}

// ClusterConfig says how to reach the API server: by the file that KUBECONFIG
// names, by the pod's ServiceAccount, or by ~/.kube/config, in this order. The
// error is a sentence that says what to do.
func ClusterConfig() (*rest.Config, error) {
	if os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		config, err := rest.InClusterConfig()
		if err == nil {
			return config, nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, fmt.Errorf("reading the pod's ServiceAccount: %w", err)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if named := os.Getenv(clientcmd.RecommendedConfigPathEnvVar); clientcmd.IsEmptyConfig(err) && named != "" {
		return nil, fmt.Errorf("KUBECONFIG is %q, where there is no kubeconfig; correct it, or unset it", named)
	}
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no Kubernetes API server is configured: this is not a pod, and there is no kubeconfig; set KUBECONFIG or create ~/.kube/config")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return config, nil
}
