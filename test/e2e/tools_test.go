package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
)

// Namespaces and pods of the suite itself.
const (
	// ours is the label of what the suite has in the namespaces of Headscales.
	ours                = "app.kubernetes.io/part-of: e2e"
	toolsNamespace      = "e2e-tools"
	privilegedNamespace = "e2e-privileged"
)

// startTools runs a pod from which Headscale is called as from any other pod, and a
// privileged one that ends processes.
func startTools(ctx context.Context) {
	GinkgoHelper()
	newNamespaces(ctx, "restricted", toolsNamespace)
	newNamespaces(ctx, "privileged", privilegedNamespace)
	apply(ctx, testpod(toolsNamespace, "toolbox", "", "idle"))
	apply(ctx, fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: killer, namespace: %[1]s}
---
apiVersion: v1
kind: Pod
metadata: {name: killer, namespace: %[1]s}
spec:
  serviceAccountName: killer
  hostPID: true
  terminationGracePeriodSeconds: 0
  containers:
  - name: testpod
    image: %[2]s
    imagePullPolicy: IfNotPresent
    args: [idle]
    securityContext: {privileged: true, runAsUser: 0}
`, privilegedNamespace, testpodImage))
	mustKube(ctx, "wait", "-n", toolsNamespace, "--for=condition=Ready", "--timeout=1m", "pod/toolbox")
	mustKube(ctx, "wait", "-n", privilegedNamespace, "--for=condition=Ready", "--timeout=1m", "pod/killer")
}

// testpod is the manifest of a pod that runs testpod, with more fields of its spec.
func testpod(namespace, name, more string, args ...string) string {
	return podManifest(namespace, name, testpodImage, more, args...)
}

// podManifest is the manifest of a pod of the suite, with more fields of its spec.
func podManifest(namespace, name, image, more string, args ...string) string {
	arguments, _ := json.Marshal(args)
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {%s}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: program
    image: %s
    imagePullPolicy: IfNotPresent
    args: %s
    resources: {requests: {cpu: 5m, memory: 16Mi}}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
%s`, name, namespace, ours, image, arguments, more)
}

// answer is what a request from the toolbox gave.
type answer struct {
	Status int
	Body   string
}

// callTimeout bounds one call from the toolbox.
const callTimeout = 20 * time.Second

// callHeadscale sends a request to Headscale from another pod, through its Service.
func callHeadscale(ctx context.Context, method, url, key, body string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	printed, err := output(ctx, key+"\n"+body, kubectl, "exec", "-i", "-n", toolsNamespace, "toolbox", "--", "/testpod", "request", method, url)
	if err != nil {
		return answer{}, err
	}
	var result answer
	err = json.Unmarshal([]byte(printed), &result)
	return result, err
}

// removeOurs removes what the suite has in the namespace of a Headscale.
func removeOurs(ctx context.Context, namespace string) {
	GinkgoHelper()
	mustKube(ctx, "delete", "pods,serviceaccounts,roles,rolebindings,secrets,configmaps", "-n", namespace, "--timeout=1m", "-l", strings.ReplaceAll(ours, ": ", "="))
}

// letReadSecret gives a ServiceAccount rights to the Secret with the key.
func letReadSecret(ctx context.Context, h *server, accountNamespace, account, verbs string) {
	GinkgoHelper()
	apply(ctx, fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: %[2]s, namespace: %[1]s, labels: {%[5]s}}
rules: [{apiGroups: [""], resources: [secrets], resourceNames: [%[6]s], verbs: [%[4]s]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: %[2]s, namespace: %[1]s, labels: {%[5]s}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: %[2]s}
subjects: [{kind: ServiceAccount, name: %[2]s, namespace: %[3]s}]
`, h.namespace, account, accountNamespace, verbs, ours, h.secret))
}

// endProcess sends SIGKILL to the process of a pod's container.
func endProcess(ctx context.Context, podUID, program string) {
	GinkgoHelper()
	mustKube(ctx, "exec", "-n", privilegedNamespace, "killer", "--", "/testpod", "kill", podUID, program)
}

// statusOf is the status of an answer, and 0 where there was none.
func statusOf(ctx context.Context, url, key string) int {
	result, err := callHeadscale(ctx, http.MethodGet, url, key, "")
	if err != nil {
		return 0
	}
	return result.Status
}
