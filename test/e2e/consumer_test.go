package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// restartWithin is how long Headscale may be away when its pod is replaced.
const restartWithin = 30 * time.Second

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
metadata: {name: consumer, namespace: %s, labels: {%s}}
`, h.namespace, ours))
	letReadSecret(ctx, h, h.namespace, "consumer", "get")
	apply(ctx, testpod(c.namespace, c.name, "  serviceAccountName: consumer\n", "consume", "--url", h.url(), "--secret", h.namespace+"/"+h.secret))
	c.await(ctx)
	return c
}

// startMountConsumer runs a consumer that mounts the Secret.
func startMountConsumer(ctx context.Context, h *server) consumer {
	GinkgoHelper()
	c := consumer{h.namespace, "mounts-it"}
	apply(ctx, testpod(c.namespace, c.name, `    volumeMounts: [{name: key, mountPath: /key, readOnly: true}]
  automountServiceAccountToken: false
  volumes: [{name: key, secret: {secretName: `+h.secret+`}}]
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

// hasKeys waits until as many different keys have worked.
func (c consumer) hasKeys(ctx context.Context, keys int) {
	GinkgoHelper()
	Eventually(func(g Gomega) { g.Expect(c.read(ctx, g).Keys).To(Equal(keys)) }).Should(Succeed())
}

// noticedNothing expects that every use of the key was answered at once. A use that is
// not answered in time counts as unreachable.
func (c consumer) noticedNothing(ctx context.Context) {
	GinkgoHelper()
	seen := c.now(ctx)
	Expect(seen.Answered).To(BeNumerically(">", 0))
	Expect(seen).To(And(HaveField("Refused", 0), HaveField("Unreachable", 0)))
}

// noticedRestart expects that no use of the key was refused, and that Headscale was not
// away for longer than a restart of its pod may take.
func (c consumer) noticedRestart(ctx context.Context) {
	GinkgoHelper()
	seen := c.now(ctx)
	Expect(seen.Refused).To(BeZero())
	Expect(time.Duration(seen.LongestGap) * time.Millisecond).To(BeNumerically("<", restartWithin))
	AddReportEntry("longest time without an answer, in ms", seen.LongestGap)
}

// restart starts the consumer's counts from nothing.
func (c consumer) restart(ctx context.Context) {
	GinkgoHelper()
	manifest := mustKube(ctx, "get", "pod", "-n", c.namespace, c.name, "-o", "jsonpath={.metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration}")
	mustKube(ctx, "delete", "pod", "-n", c.namespace, c.name, "--grace-period=0", "--force")
	apply(ctx, manifest)
	c.await(ctx)
}

// remove ends the consumer.
func (c consumer) remove(ctx context.Context) {
	GinkgoHelper()
	mustKube(ctx, "delete", "pod", "-n", c.namespace, c.name, "--grace-period=0", "--force")
}
