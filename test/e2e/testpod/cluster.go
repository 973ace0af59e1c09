package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// serviceAccount is where a pod finds its token and the cluster's CA.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

// cluster is the API server, and who asks it.
type cluster struct {
	address, token string
	client         *http.Client
}

// secret is what is read of a Secret.
type secret struct {
	Metadata struct {
		ResourceVersion string
		Annotations     map[string]string
	}
	Data map[string][]byte
}

// newCluster is the API server as a container asks it whose files are below a directory:
// with its token, or as nobody where it has none.
func newCluster(files string) (*cluster, error) {
	dir := filepath.Join(files, serviceAccount)
	token, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca, err := os.ReadFile(filepath.Join(dir, "ca.crt")); err == nil {
		settings.RootCAs = x509.NewCertPool()
		settings.RootCAs.AppendCertsFromPEM(ca)
	} else {
		// Whoever has no CA has no token either, and so nothing to lose.
		settings.InsecureSkipVerify = true
	}
	return &cluster{
		address: "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")),
		token:   strings.TrimSpace(string(token)),
		client:  &http.Client{Transport: &http.Transport{TLSClientConfig: settings}},
	}, nil
}

// get prints what the API server answers to a container whose files are below a directory.
func get(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("get needs a directory and a path, such as /proc/1/root /api/v1/namespaces")
	}
	c, err := newCluster(args[0])
	if err != nil {
		return err
	}
	result, err := send(ctx, c.client, http.MethodGet, c.address+args[1], c.token, http.NoBody)
	if err != nil {
		return err
	}
	// What a Secret holds is nothing for a log.
	return json.NewEncoder(os.Stdout).Encode(struct {
		Status int  `json:"status"`
		Token  bool `json:"token"` // whether the container has one
	}{result.Status, c.token != ""})
}

// pathOf is the path of a Secret, "namespace/name".
func pathOf(name string) string {
	namespace, name, _ := strings.Cut(name, "/")
	return "/api/v1/namespaces/" + namespace + "/secrets/" + name
}

// readSecret reads a Secret, "namespace/name".
func (c *cluster) readSecret(ctx context.Context, name string) (secret, error) {
	result, err := send(ctx, c.client, http.MethodGet, c.address+pathOf(name), c.token, http.NoBody)
	if err != nil {
		return secret{}, err
	}
	if result.Status != http.StatusOK {
		return secret{}, fmt.Errorf("reading the Secret: status %d", result.Status)
	}
	var read secret
	err = json.Unmarshal([]byte(result.Body), &read)
	return read, err
}

// watchSecret begins to watch a Secret after a version of it.
func (c *cluster) watchSecret(ctx context.Context, name, version string) (*http.Response, error) {
	list, name := filepath.Split(pathOf(name))
	query := url.Values{"watch": {"1"}, "resourceVersion": {version}, "fieldSelector": {"metadata.name=" + name}}
	return c.do(ctx, http.MethodGet, strings.TrimSuffix(list, "/")+"?"+query.Encode(), "", http.NoBody)
}

// annotateSecret sets an annotation of a Secret.
func (c *cluster) annotateSecret(ctx context.Context, name, annotation, value string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{annotation: value}}})
	if err != nil {
		return err
	}
	response, err := c.do(ctx, http.MethodPatch, pathOf(name), "application/merge-patch+json", strings.NewReader(string(patch)))
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// do sends a request, of which only the context bounds the time. A status other than 200
// is an error.
func (c *cluster) do(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.address+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("%s %s: status %d", method, path, response.StatusCode)
	}
	return response, nil
}
