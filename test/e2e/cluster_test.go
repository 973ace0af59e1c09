package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const (
	// commandTimeout bounds every program that is run: one that hangs would take the
	// evidence with it.
	commandTimeout = 4 * time.Minute
	// pipesTimeout is how long what a program has started may keep its output open.
	pipesTimeout = 5 * time.Second
)

// output runs a program and returns what it printed. The error of one that failed
// contains its complaints.
func output(ctx context.Context, stdin, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	command.WaitDelay = pipesTimeout
	command.Dir = root
	command.Env = append(os.Environ(), "PATH="+searchPath())
	command.Stdin = strings.NewReader(stdin)
	var printed, complaints strings.Builder
	command.Stdout, command.Stderr = &printed, &complaints
	if err := command.Run(); err != nil {
		return printed.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return printed.String(), nil
}

// searchPath is where programs are looked for: kubectl is the suite's own.
func searchPath() string {
	return filepath.Dir(kubectl) + string(os.PathListSeparator) + os.Getenv("PATH")
}

// kube runs kubectl.
func kube(ctx context.Context, args ...string) (string, error) {
	return output(ctx, "", kubectl, args...)
}

// mustKube runs kubectl, which must succeed.
func mustKube(ctx context.Context, args ...string) string {
	GinkgoHelper()
	printed, err := kube(ctx, args...)
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(printed)
}

// apply applies a manifest.
func apply(ctx context.Context, manifest string) {
	GinkgoHelper()
	_, err := output(ctx, manifest, kubectl, "apply", "-f", "-")
	Expect(err).NotTo(HaveOccurred())
}

// newNamespaces makes namespaces that enforce a Pod Security Standard, waits for what
// Kubernetes puts into them, and removes them after the spec, or after the container of
// specs.
func newNamespaces(ctx context.Context, standard string, names ...string) {
	GinkgoHelper()
	for _, name := range names {
		apply(ctx, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata:
  name: %s
  labels: {pod-security.kubernetes.io/enforce: %s, pod-security.kubernetes.io/warn: %s}
`, name, standard, standard))
		// One at a time: kubectl gives up at once where two are missing.
		for _, object := range []string{"serviceaccount/default", "configmap/kube-root-ca.crt"} {
			mustKube(ctx, "wait", "-n", name, "--for=create", "--timeout=1m", object)
		}
	}
	DeferCleanup(func(ctx SpecContext) {
		mustKube(ctx, append([]string{"delete", "namespace", "--ignore-not-found", "--timeout=3m"}, names...)...)
	})
}
