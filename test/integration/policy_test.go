package integration_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// policyInForce is the policy of a Headscale, asked on its socket.
func (s *server) policyInForce(ctx context.Context) (string, error) {
	asks := headscale.NewClient(headscale.UnixSocket(s.pod.HostPath(containerManager, v1beta1.DefaultSocketPath)), headscale.WithCallTimeout(time.Minute))
	defer func() { _ = asks.Close() }()
	answer, err := asks.GetPolicy(ctx)
	return answer.Text, err
}

// policyManifest is a HeadscalePolicy with a policy.
func policyManifest(name, policy string) string {
	return "apiVersion: headscale.infrado.cloud/v1beta1\nkind: HeadscalePolicy\nmetadata: {name: " + name + "}\nspec: {headscaleRef: headscale, policy: " + policy + "}\n"
}

// inDatabase is a manifest of a Headscale of a version that reads its policy from its database.
func inDatabase(version string) string {
	return strings.Replace(strings.Replace(shortestManifest, "v0.29.3", version, 1), "config: {", "config: {policy: {mode: database}, ", 1)
}

// readyPolicy waits until a HeadscalePolicy is ready.
func readyPolicy(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		policy := &v1beta1.HeadscalePolicy{}
		g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, policy)).To(Succeed())
		ready := meta.FindStatusCondition(policy.Status.Conditions, v1beta1.ConditionReady)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(ready.Status).To(Equal(metav1.ConditionTrue), ready.Message)
		g.Expect(ready.ObservedGeneration).To(Equal(policy.Generation))
		g.Expect(policy.Status.SendingDigest).To(BeEmpty())
	}).WithContext(ctx).Should(Succeed())
}

// slack is what a busy machine takes longer.
const slack = time.Minute

// A release that finds the stored policy invalid would not start, and have no API any more.
var _ = Describe("An upgrade of a Headscale with a policy", func() {
	It("is refused while the next release refuses the policy that is in force, and made then", func(ctx SpecContext) {
		const tagged = `{tagOwners: {"tag:%[1]s": ["alice@"]}, acls: [{action: accept, src: ["alice@"], dst: ["tag:%[1]s:443"]}]}`
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, inDatabase("v0.28.0"))
		apply(ctx, namespace, policyManifest("web", fmt.Sprintf(tagged, "1web")))
		hs.awaitReady(ctx)
		readyPolicy(ctx, namespace, "web")
		unchanged := hs.unchanged(ctx)
		hs.patch(ctx, `{"spec":{"version":"v0.29.3"}}`)
		ready := hs.awaitHeld(ctx, v1beta1.PreflightRefused)
		Expect(ready.Message).To(And(ContainSubstring("Headscale v0.29.3 does not start"), ContainSubstring("tag names must start with a letter")))
		unchanged(ctx, "an upgrade that the policy forbids")
		Expect(hs.policyInForce(ctx)).To(ContainSubstring("tag:1web"))

		hs.patch(ctx, `{"spec":{"version":"v0.28.0"}}`)
		hs.awaitReady(ctx)
		apply(ctx, namespace, policyManifest("web", fmt.Sprintf(tagged, "web")))
		readyPolicy(ctx, namespace, "web")
		hs.patch(ctx, `{"spec":{"version":"v0.29.3"}}`)
		hs.awaitReady(ctx)
		Expect(hs.get(ctx).Status.Version).To(Equal("v0.29.3"))
		Expect(hs.policyInForce(ctx)).To(ContainSubstring("tag:web"))
		readyPolicy(ctx, namespace, "web")

		table, err := plane.Kubectl(ctx, "get", "hspolicy", "-n", namespace)
		Expect(err).NotTo(HaveOccurred())
		lines := strings.Split(strings.TrimSpace(table), "\n")
		Expect(strings.Fields(lines[0])).To(Equal([]string{"NAME", "HEADSCALE", "ORDER", "READY", "REASON", "APPLIED", "AGE"}))
		Expect(strings.Fields(lines[1])[:5]).To(Equal([]string{"web", "headscale", "100", "True", "Ready"}))

		asks := headscale.NewClient(headscale.UnixSocket(hs.pod.HostPath(containerManager, v1beta1.DefaultSocketPath)))
		DeferCleanup(asks.Close)
		_, err = asks.SetPolicy(ctx, `{"acls": []}`)
		Expect(err).NotTo(HaveOccurred())
		Eventually(hs.policyInForce).WithContext(ctx).WithArguments(ctx).Within(30*time.Second+slack).Should(ContainSubstring("tag:web"), "a change by hand is reverted")

		apply(ctx, namespace, "apiVersion: headscale.infrado.cloud/v1beta1\nkind: HeadscalePreAuthKey\nmetadata: {name: db}\nspec: {headscaleRef: headscale, tags: ['tag:db']}\n")
		warns := func(g Gomega) string {
			key := &v1beta1.HeadscalePreAuthKey{}
			g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "db"}, key)).To(Succeed())
			ready := meta.FindStatusCondition(key.Status.Conditions, v1beta1.ConditionReady)
			g.Expect(ready).To(HaveValue(HaveField("Status", metav1.ConditionTrue)))
			return ready.Message
		}
		Eventually(warns).WithContext(ctx).Should(ContainSubstring("does not know tag:db"))
		apply(ctx, namespace, policyManifest("web", fmt.Sprintf(tagged, "db")))
		readyPolicy(ctx, namespace, "web")
		Eventually(warns).WithContext(ctx).Within(25*time.Second).ShouldNot(ContainSubstring("does not know"), "what the operator changes itself, it knows before it asks again after 30 seconds")
	})
})

var _ = Describe("A policy while the operator is killed", func() {
	It("ends in the last of a hundred changes, and is never open", func(ctx SpecContext) {
		shared := world
		own := startWorld(ctx, "hs-kill-")
		use(own)
		DeferCleanup(func() { use(shared) })
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, inDatabase("v0.29.3"))
		rule := func(port int) string {
			return fmt.Sprintf(`{acls: [{action: accept, src: ["*"], dst: ["*:%d"]}]}`, port)
		}
		apply(ctx, namespace, policyManifest("base", rule(1)))
		hs.awaitReady(ctx)
		readyPolicy(ctx, namespace, "base")

		asking, stop := context.WithCancel(ctx)
		defer stop()
		var open, answers int
		var reader sync.WaitGroup
		reader.Go(func() {
			for asking.Err() == nil {
				text, err := hs.policyInForce(asking)
				switch {
				case err != nil && asking.Err() != nil:
				case err != nil || !strings.Contains(text, `"acls"`):
					open++
				default:
					answers++
				}
			}
		})
		for port := 2; port <= 100; port++ {
			policy := &v1beta1.HeadscalePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "base"}}
			patch := fmt.Sprintf(`{"spec":{"policy":{"acls":[{"action":"accept","src":["*"],"dst":["*:%d"]}]}}}`, port)
			Expect(admin.Patch(ctx, policy, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
			if port%8 != 0 {
				continue
			}
			// Any moment of what it does: it has begun after some 300 ms.
			timer := time.NewTimer(time.Duration(rand.IntN(1000)) * time.Millisecond)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			world.Operator.Process.Kill()
			<-world.Operator.Process.Exited()
			Expect(own.StartOperator(ctx, unelected)).To(Succeed())
		}
		readyPolicy(ctx, namespace, "base")
		Expect(hs.policyInForce(ctx)).To(ContainSubstring(`"*:100"`))
		stop()
		reader.Wait()
		Expect(open).To(BeZero())
		Expect(answers).To(BeNumerically(">", 50))
		for _, event := range eventsOf(ctx, namespace) {
			Expect(event).NotTo(ContainSubstring("PolicyCorrected"), "a killed operator is not taken for somebody else")
		}

		world.Operator.Process.Kill()
		<-world.Operator.Process.Exited()
		Expect(admin.Delete(ctx, &v1beta1.HeadscalePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "base"}})).To(Succeed())
		Expect(own.StartOperator(ctx, unelected)).To(Succeed())
		Eventually(eventsOf).WithContext(ctx).WithArguments(ctx, namespace).Should(ContainElement("PolicyLeft"), "the last one was deleted without an operator")
		Expect(hs.policyInForce(ctx)).To(ContainSubstring(`"*:100"`))
	})
})

// eventsOf are the reasons of a namespace's events.
func eventsOf(ctx context.Context, namespace string) []string {
	GinkgoHelper()
	text, err := plane.Kubectl(ctx, "get", "events", "-n", namespace, "-o", `jsonpath={range .items[*]}{.reason}{"\n"}{end}`)
	Expect(err).NotTo(HaveOccurred())
	return strings.Split(strings.TrimSpace(text), "\n")
}
