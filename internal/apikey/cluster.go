package apikey

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
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
