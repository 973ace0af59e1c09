package policy

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// slow is how long what is large may take on a busy machine.
const slow = 4 * time.Minute

// createPolicies creates HeadscalePolicies with a text for each, in a namespace whose HeadscalePolicies are deleted
// after the spec: what reads all of a cluster would take seconds for them in every later one.
func createPolicies(ctx context.Context, namespace string, texts ...string) {
	GinkgoHelper()
	DeferCleanup(func(ctx SpecContext) {
		Expect(admin.DeleteAllOf(ctx, &v1beta1.HeadscalePolicy{}, client.InNamespace(namespace))).To(Succeed())
	})
	for i, text := range texts {
		object := &v1beta1.HeadscalePolicy{Spec: v1beta1.HeadscalePolicySpec{HeadscaleRef: "headscale", HuJSON: text}}
		object.Namespace, object.Name = namespace, fmt.Sprintf("part-%03d", i)
		Expect(admin.Create(ctx, object)).To(Succeed())
	}
}

// changePolicy replaces the text of one.
func changePolicy(ctx context.Context, namespace, name, text string) {
	GinkgoHelper()
	object := get(ctx, namespace, name)(NewWithT(GinkgoT()))
	changed := object.DeepCopy()
	changed.Spec.HuJSON = text
	Expect(admin.Patch(ctx, changed, client.MergeFrom(object))).To(Succeed())
}

// reasons counts the reasons of the condition Ready.
func reasons(ctx context.Context, namespace string) func(g Gomega) map[string]int {
	return func(g Gomega) map[string]int {
		list := &v1beta1.HeadscalePolicyList{}
		g.Expect(admin.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		found := map[string]int{}
		for i := range list.Items {
			reason := "none"
			for _, c := range list.Items[i].Status.Conditions {
				if c.Type == v1beta1.ConditionReady {
					reason = c.Reason
				}
			}
			found[reason]++
		}
		return found
	}
}

// hosts is a policy with so many hosts, which allows one port.
func hosts(number, port int) string {
	var text strings.Builder
	text.WriteString(`{"hosts": {`)
	for i := range number {
		fmt.Fprintf(&text, "\"host-with-a-long-name-%06d\": \"10.%d.%d.%d/32\",\n", i, i>>16, i>>8&255, i&255)
	}
	fmt.Fprintf(&text, `}, "acls": %s}`, rule(port))
	return text.String()
}

var _ = Describe("A large policy", func() {
	for _, version := range []string{releases[0], releases[len(releases)-1]} {
		It("of 200 objects with 2000 rules is in force, and so is a change of it, with Headscale "+version, func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			s := newServer(ctx, namespace, version, headscale.UnixSocket(startHeadscale(ctx, version).SocketPath()))
			var texts []string
			for i := range 200 {
				var ports []int
				for j := range 10 {
					ports = append(ports, 10*i+j+1)
				}
				texts = append(texts, "{"+rules(ports...)+"}")
			}
			createPolicies(ctx, namespace, texts...)
			startOperator(namespace)
			Eventually(reasons(ctx, namespace)).WithContext(ctx).Within(slow).Should(Equal(map[string]int{"Ready": 200}))
			inForce := s.inForce(ctx)(NewWithT(GinkgoT()))
			Expect(strings.Count(inForce, "accept")).To(Equal(2000))
			changePolicy(ctx, namespace, "part-100", "{"+rules(5000)+"}")
			Eventually(s.inForce(ctx)).WithContext(ctx).Within(slow).Should(And(ContainSubstring(rules(5000)[8:len(rules(5000))-1]), Not(ContainSubstring(":1001\""))))
			Eventually(reasons(ctx, namespace)).WithContext(ctx).Within(slow).Should(Equal(map[string]int{"Ready": 200}))
			before := s.setCount()
			Consistently(s.setCount).Should(Equal(before))
		}, SpecTimeout(2*slow))

		It("of 1 MiB is in force, and one that is larger than Headscale takes says so and leaves it, with Headscale "+version, func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			s := newServer(ctx, namespace, version, headscale.UnixSocket(startHeadscale(ctx, version).SocketPath()))
			large := hosts(19000, 22)
			large += "//" + strings.Repeat("x", 1<<20-2-len(large))
			createPolicies(ctx, namespace, large)
			startOperator(namespace)
			isReady := condition(ctx, namespace, "part-000")
			Eventually(isReady).WithContext(ctx).Within(slow).Should(HavePrefix("True Ready: "))
			Expect(len(inForceText(ctx, s))).To(BeNumerically(">", 1<<20))

			for i := range 4 {
				put(ctx, namespace, policyManifest(fmt.Sprintf("more-%d", i), fmt.Sprintf(`hujson: '{"acls": %s} //%s'`, rule(1000+i), strings.Repeat("y", 1<<20-100))))
			}
			Eventually(condition(ctx, namespace, "more-3")).WithContext(ctx).Within(slow).Should(And(HavePrefix("False TooLarge: The joined policy is too large, and what was in force stays: "),
				MatchRegexp(`it has \d+ bytes of at most \d+`)))
			// The first of them may have been in force before the last one came.
			Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(And(ContainSubstring(`*:22"`), Not(ContainSubstring(`*:1003"`))))
		}, SpecTimeout(2*slow))
	}

	It("is refused by the API server where an object is larger than that stores", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		Expect(send(ctx, namespace, policyManifest("a", `hujson: '{"acls": []} //`+strings.Repeat("x", 1<<20)+`'`))).To(
			MatchError(MatchRegexp("may not be (more|longer) than 1048576")))
		Expect(send(ctx, namespace, policyManifest("b", `policy: {acls: [], x: "`+strings.Repeat("x", 2<<20)+`"}`))).To(
			MatchError(Or(ContainSubstring("request is too large"), ContainSubstring("larger than max"))))
	})
})
