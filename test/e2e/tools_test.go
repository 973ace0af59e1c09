package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// Namespaces and pods of the suite itself.
const (
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
kind: Pod
metadata: {name: killer, namespace: %s}
spec:
  hostPID: true
  terminationGracePeriodSeconds: 0
  containers:
  - name: testpod
    image: %s
    imagePullPolicy: IfNotPresent
    args: [idle]
    securityContext: {privileged: true, runAsUser: 0}
`, privilegedNamespace, testpodImage))
	mustKube(ctx, "wait", "-n", toolsNamespace, "--for=condition=Ready", "--timeout=1m", "pod/toolbox")
	mustKube(ctx, "wait", "-n", privilegedNamespace, "--for=condition=Ready", "--timeout=1m", "pod/killer")
}

// testpod is the manifest of a pod of the suite, with more fields of its spec.
func testpod(namespace, name, more string, args ...string) string {
	arguments, _ := json.Marshal(args)
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: testpod
    image: %s
    imagePullPolicy: IfNotPresent
    args: %s
    resources: {requests: {cpu: 5m, memory: 16Mi}}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
%s`, name, namespace, testpodImage, arguments, more)
}

// answer is what a request from the toolbox gave.
type answer struct {
	Status int
	Body   string
}

// callHeadscale sends a request to Headscale from another pod, through its Service.
func callHeadscale(ctx context.Context, method, url, key, body string) (answer, error) {
	printed, err := output(ctx, key+"\n"+body, kubectl, "exec", "-i", "-n", toolsNamespace, "toolbox", "--", "/testpod", "request", method, url)
	if err != nil {
		return answer{}, err
	}
	var result answer
	err = json.Unmarshal([]byte(printed), &result)
	return result, err
}

// endProcess sends SIGKILL to the process of a pod's container.
func endProcess(ctx context.Context, podUID, program string) {
	GinkgoHelper()
	mustKube(ctx, "exec", "-n", privilegedNamespace, "killer", "--", "/testpod", "kill", podUID, program)
}

// counts are what a consumer has met.
type counts struct {
	Answered, Refused, Unreachable, Keys int
	LongestGap                           int64 // milliseconds
}

// consumer is a pod that uses the key all the time.
type consumer struct{ namespace, name string }

// startAPIConsumer runs a consumer that reads the Secret through the API.
func startAPIConsumer(ctx context.Context, h *server) consumer {
	GinkgoHelper()
	c := consumer{h.namespace, "reads-by-api"}
	apply(ctx, fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: consumer, namespace: %[1]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: consumer, namespace: %[1]s}
rules: [{apiGroups: [""], resources: [secrets], resourceNames: [headscale-api-key], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: consumer, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: consumer}
subjects: [{kind: ServiceAccount, name: consumer, namespace: %[1]s}]
`, h.namespace))
	apply(ctx, testpod(c.namespace, c.name, "  serviceAccountName: consumer\n", "consume", "--url", h.url(), "--secret", h.namespace+"/headscale-api-key"))
	c.await(ctx)
	return c
}

// startMountConsumer runs a consumer that mounts the Secret.
func startMountConsumer(ctx context.Context, h *server) consumer {
	GinkgoHelper()
	c := consumer{h.namespace, "mounts-it"}
	apply(ctx, testpod(c.namespace, c.name, `    volumeMounts: [{name: key, mountPath: /key, readOnly: true}]
  automountServiceAccountToken: false
  volumes: [{name: key, secret: {secretName: headscale-api-key}}]
`, "consume", "--url", h.url(), "--file", "/key/api-key"))
	c.await(ctx)
	return c
}

// await waits until the consumer has used the key.
func (c consumer) await(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) { g.Expect(c.read(ctx, g).Answered).To(BeNumerically(">", 0)) }).Should(Succeed())
}

// read returns the consumer's latest counts.
func (c consumer) read(ctx context.Context, g Gomega) counts {
	printed, err := kube(ctx, "logs", "-n", c.namespace, c.name, "--tail=1")
	g.Expect(err).NotTo(HaveOccurred())
	var now counts
	g.Expect(json.Unmarshal([]byte(strings.TrimSpace(printed)), &now)).To(Succeed(), printed)
	return now
}

// now returns the consumer's latest counts.
func (c consumer) now(ctx context.Context) counts {
	GinkgoHelper()
	var now counts
	Eventually(func(g Gomega) { now = c.read(ctx, g) }).Should(Succeed())
	return now
}

// restart starts the consumer's counts from nothing.
func (c consumer) restart(ctx context.Context) {
	GinkgoHelper()
	manifest := mustKube(ctx, "get", "pod", "-n", c.namespace, c.name, "-o", "jsonpath={.metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration}")
	mustKube(ctx, "delete", "pod", "-n", c.namespace, c.name, "--grace-period=0", "--force")
	apply(ctx, manifest)
	c.await(ctx)
}

// statusOf is the status of an answer, and 0 where there was none.
func statusOf(ctx context.Context, url, key string) int {
	result, err := callHeadscale(ctx, http.MethodGet, url, key, "")
	if err != nil {
		return 0
	}
	return result.Status
}
