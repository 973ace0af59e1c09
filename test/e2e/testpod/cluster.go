package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
)

// serviceAccount is where a pod finds its token and the cluster's CA.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

// get prints what the API server answers to the pod's token, or to nobody where the
// pod has none.
func get(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("get needs a path, such as /api/v1/namespaces")
	}
	result, err := askCluster(ctx, args[0])
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// askCluster sends a GET request to the API server with what the pod has.
func askCluster(ctx context.Context, path string) (answer, error) {
	token, err := os.ReadFile(serviceAccount + "token")
	if err != nil && !os.IsNotExist(err) {
		return answer{}, err
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca, err := os.ReadFile(serviceAccount + "ca.crt"); err == nil {
		settings.RootCAs = x509.NewCertPool()
		settings.RootCAs.AppendCertsFromPEM(ca)
	} else {
		// Whoever has no CA has no token either, and so nothing to lose.
		settings.InsecureSkipVerify = true
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: settings}}
	address := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	return send(ctx, client, http.MethodGet, "https://"+address+path, strings.TrimSpace(string(token)), http.NoBody)
}

// readSecret reads the key from a Secret, "namespace/name", through the API.
func readSecret(ctx context.Context, secret string) (string, error) {
	namespace, name, _ := strings.Cut(secret, "/")
	result, err := askCluster(ctx, "/api/v1/namespaces/"+namespace+"/secrets/"+name)
	if err != nil {
		return "", err
	}
	if result.Status != http.StatusOK {
		return "", fmt.Errorf("reading the Secret: status %d", result.Status)
	}
	var object struct{ Data map[string]string }
	if err := json.Unmarshal([]byte(result.Body), &object); err != nil {
		return "", err
	}
	key, err := base64.StdEncoding.DecodeString(object.Data["api-key"])
	return string(key), err
}
