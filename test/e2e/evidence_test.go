package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// evidenceTimeout is how long evidence is gathered. It has a time of its own, because
// the failed spec may have used up its time.
const evidenceTimeout = 2 * time.Minute

// evidenceDir is the folder for what shows why something failed.
func evidenceDir() string {
	if dir := os.Getenv("E2E_ARTIFACTS"); dir != "" {
		return dir
	}
	return filepath.Join(root, "out", "e2e")
}

// clearEvidence removes what an earlier run has left, where the folder is the suite's own.
func clearEvidence() error {
	if os.Getenv("E2E_ARTIFACTS") != "" {
		return nil
	}
	return os.RemoveAll(evidenceDir())
}

// keepEvidence leaves logs, events and objects as they are now in a folder.
func keepEvidence(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), evidenceTimeout)
	defer cancel()
	dir := filepath.Join(evidenceDir(), fileName(name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		GinkgoWriter.Println("no evidence:", err)
		return
	}
	keep := func(file string, args ...string) {
		printed, err := kube(ctx, args...)
		if err != nil {
			printed += "\n" + err.Error()
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(printed), 0o600); err != nil {
			GinkgoWriter.Println("no evidence:", err)
		}
	}
	keep("events.txt", "get", "events", "-A", "--sort-by=.metadata.creationTimestamp")
	keep("objects.txt", "get", "all,headscales,roles,rolebindings,serviceaccounts,configmaps,persistentvolumeclaims,leases", "-A", "-o", "wide")
	keep("cluster.txt", "get", "nodes,namespaces,persistentvolumes,storageclasses,clusterroles,clusterrolebindings,customresourcedefinitions", "-o", "wide")
	keep("headscales.yaml", "get", "headscales,headscaleusers,headscalepreauthkeys,headscalepolicies", "-A", "-o", "yaml")
	keep("networkpolicies.yaml", "get", "networkpolicies", "-A", "-o", "yaml")
	keep("workloads.yaml", "get", "deployments,statefulsets,controllerrevisions", "-A", "-o", "yaml")
	keep("leases.yaml", "get", "leases", "-A", "-o", "yaml")
	// What describes a Secret, without what is in it.
	keep("secrets.txt", "get", "secrets", "-A", "-o",
		"custom-columns=NAMESPACE:.metadata.namespace,NAME:.metadata.name,MADE:.metadata.creationTimestamp,VERSION:.metadata.resourceVersion,OWNERS:.metadata.ownerReferences,LABELS:.metadata.labels,ANNOTATIONS:.metadata.annotations")
	keep("nodes.txt", "describe", "nodes")
	keep("pods.txt", "describe", "pods", "-A")
	for _, pod := range podNames(ctx) {
		for suffix, more := range map[string][]string{"": nil, ".previous": {"--previous"}} {
			args := append([]string{"logs", "--all-containers", "--prefix", "-n", pod.Namespace, pod.Name}, more...)
			keep("log-"+pod.Namespace+"-"+pod.Name+suffix+".txt", args...)
		}
	}
	GinkgoWriter.Println("logs, events and objects are in", dir)
}

// keepFailures leaves what each spec that failed complained of in one file, failures.txt.
func keepFailures(report Report) {
	var text strings.Builder
	for i := range report.SpecReports {
		if spec := &report.SpecReports[i]; spec.Failed() {
			fmt.Fprintf(&text, "%s %s\nafter %s, in %s at %s:\n%s\n\n", spec.LeafNodeType, spec.FullText(),
				spec.RunTime.Round(time.Second), spec.Failure.FailureNodeType, spec.FailureLocation(), spec.FailureMessage())
		}
	}
	err := errors.Join(os.MkdirAll(evidenceDir(), 0o755), os.WriteFile(filepath.Join(evidenceDir(), "failures.txt"), []byte(text.String()), 0o600))
	if err != nil {
		GinkgoWriter.Println("no failures.txt:", err)
	}
}

// podNames lists all pods.
func podNames(ctx context.Context) []client.ObjectKey {
	pods := &corev1.PodList{}
	if err := admin.List(ctx, pods); err != nil {
		return nil
	}
	names := make([]client.ObjectKey, 0, len(pods.Items))
	for i := range pods.Items {
		names = append(names, client.ObjectKeyFromObject(&pods.Items[i]))
	}
	return names
}

var notInFileNames = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// fileName makes a file's name of a text.
func fileName(text string) string {
	return strings.Trim(notInFileNames.ReplaceAllString(text, "-"), "-")
}
