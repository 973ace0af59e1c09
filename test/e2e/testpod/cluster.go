package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// serviceAccount is where a pod finds its token and the cluster's CA.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

// newCluster is the way to the API server for a container whose files are below a directory:
// with its token, or as nobody where it has none.
func newCluster(files string) (client *corev1client.CoreV1Client, hasToken bool, err error) {
	token, err := os.ReadFile(filepath.Join(files, serviceAccount, "token"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, false, err
	}
	config := &rest.Config{
		Host:        "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")),
		BearerToken: strings.TrimSpace(string(token)), QPS: -1,
	}
	config.CAData, err = os.ReadFile(filepath.Join(files, serviceAccount, "ca.crt"))
	// Whoever has no CA has no token either, and so nothing to lose.
	config.Insecure = err != nil
	client, err = corev1client.NewForConfig(config)
	return client, config.BearerToken != "", err
}

// secretIn is the way to the Secret "namespace/name" for such a container, and its name.
func secretIn(files, secret string) (corev1client.SecretInterface, string, error) {
	client, _, err := newCluster(files)
	if err != nil {
		return nil, "", err
	}
	namespace, name, _ := strings.Cut(secret, "/")
	return client.Secrets(namespace), name, nil
}

// get prints what the API server answers to a container whose files are below a directory.
func get(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("get needs a directory and a path, such as /proc/1/root /api/v1/namespaces")
	}
	client, hasToken, err := newCluster(args[0])
	if err != nil {
		return err
	}
	var status int
	result := client.RESTClient().Get().AbsPath(args[1]).Timeout(requestTimeout).Do(ctx).StatusCode(&status)
	if status == 0 {
		return result.Error()
	}
	// What a Secret holds is nothing for a log.
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"status": status, "token": hasToken})
}
