package policy

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// releases are those of which specs run with each.
var releases = []string{"v0.26.1", "v0.27.1", "v0.28.0", "v0.29.3"}

// rule is a list of one rule, to a port.
func rule(port int) string {
	return fmt.Sprintf(`[{"action": "accept", "src": ["*"], "dst": ["*:%d"]}]`, port)
}

// rules are those of ports as Headscale has them, without spaces.
func rules(ports ...int) string {
	var all []string
	for _, port := range ports {
		all = append(all, fmt.Sprintf(`{"action":"accept","dst":["*:%d"],"src":["*"]}`, port))
	}
	return `"acls":[` + strings.Join(all, ",") + `]`
}

// eachRelease has specs for each release, which start a Headscale of it.
func eachRelease(specs func(start func(ctx context.Context) (s *server, namespace string))) {
	for _, version := range releases {
		Context("of Headscale "+version, Ordered, func() {
			specs(func(ctx context.Context) (*server, string) {
				hs := startHeadscale(ctx, version)
				namespace := newNamespace(ctx)
				return newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath())), namespace
			})
		})
	}
	Context("of Headscale v0.30 by its contract", Ordered, func() {
		specs(func(ctx context.Context) (*server, string) {
			namespace := newNamespace(ctx)
			fake := headscaletest.New(filepath.Join(cluster.Guard.Dir(), "fake-"+namespace), headscaletest.V030)
			Expect(fake.Start()).To(Succeed())
			DeferCleanup(fake.Stop)
			return newServer(ctx, namespace, "v0.30.0", headscale.UnixSocket(filepath.Join(cluster.Guard.Dir(), "fake-"+namespace))), namespace
		})
	})
}

var _ = Describe("A HeadscalePolicy", func() {
	eachRelease(func(start func(ctx context.Context) (*server, string)) {
		var s *server
		var namespace string

		BeforeAll(func(ctx SpecContext) {
			s, namespace = start(ctx)
			startOperator(namespace)
		})

		isReady := func(name string) func(g Gomega) string { return condition(context.Background(), namespace, name) }

		It("is in force, as YAML and as HuJSON with its comments", func(ctx SpecContext) {
			put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
			Eventually(isReady("base")).Should(HavePrefix("True Ready: "))
			Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(22) + "}"))
			Eventually(events(ctx, namespace, "base")).WithContext(ctx).Should(ContainElement(HavePrefix("PolicyApplied: Headscale accepted the policy; changed sections: acls")))
		})

		It("is joined with others in their order", func(ctx SpecContext) {
			two := `order: 200, hujson: '{"acls": [/* the web */ ` + rule(443)[1:len(rule(443))-1] + `,],}'`
			put(ctx, namespace, policyManifest("team", two))
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(22, 443) + "}"))
			Eventually(isReady("team")).Should(HavePrefix("True Ready: "))
			stored, err := s.Direct.GetPolicy(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(stored.Text).To(And(ContainSubstring("the web"), ContainSubstring("// HeadscalePolicy team"), ContainSubstring("// HeadscalePolicy base")))
		})

		It("is not sent again at rest, nor because of another formatting", func(ctx SpecContext) {
			before := s.setCount()
			s.byHand(ctx, s.inForce(ctx)(NewWithT(GinkgoT())))
			Consistently(s.setCount).Should(Equal(before))
		})

		It("stays out as a whole where Headscale refuses it, in Headscale's words, at the object that changed", func(ctx SpecContext) {
			sent := s.setCount()
			s.failAt(sent + 2)
			put(ctx, namespace, policyManifest("team", `order: 200, policy: {acls: [{action: accept, src: ["group:nobody"], dst: ["*:80"]}]}`))
			if s.fake() {
				return // the contract's server does not look into a policy
			}
			Eventually(isReady("team")).Should(And(HavePrefix("False Refused: Headscale refuses the policy"), ContainSubstring("group:nobody")))
			Eventually(isReady("base")).Should(HavePrefix("False PolicyPending: Headscale refuses the policy with HeadscalePolicy team"))
			Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(22, 443) + "}"))
			Eventually(events(ctx, namespace, "team")).WithContext(ctx).Should(ContainElement(HavePrefix("Refused: ")))
			Eventually(s.setCount).Should(Equal(sent+3), "what was in force is sent again, and once more because that failed")
			Eventually(func(g Gomega) string { return get(ctx, namespace, "base")(g).Status.SendingDigest }).Should(BeEmpty())
			Consistently(s.setCount).Should(Equal(sent+3), "it is not tried again and again")
		})

		It("is mended by the next change", func(ctx SpecContext) {
			put(ctx, namespace, policyManifest("team", "order: 50, policy: {acls: "+rule(80)+"}"))
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(80, 22) + "}"))
			Eventually(isReady("base")).Should(HavePrefix("True Ready: "))
			Eventually(isReady("team")).Should(HavePrefix("True Ready: "))
		})

		It("is left out where it conflicts with an older one", func(ctx SpecContext) {
			put(ctx, namespace, policyManifest("hosts", `policy: {hosts: {db: 10.0.0.1/32}}`))
			Eventually(isReady("hosts")).Should(HavePrefix("True Ready: "))
			put(ctx, namespace, policyManifest("a-younger", `policy: {hosts: {db: 10.0.0.2/32}}`))
			young, old := isReady("a-younger"), isReady("hosts")
			// Both may have been created in one second, and then the name decides.
			Eventually(func(g Gomega) string { return young(g) + old(g) }).Should(ContainSubstring(`"hosts"."db" of HeadscalePolicy `))
			remove(ctx, namespace, "a-younger")
			Eventually(old).Should(Equal("True Ready: Headscale has it in its policy, joined with 2 more"))
			remove(ctx, namespace, "hosts")
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(80, 22) + "}"))
		})

		It("never opens the tailnet by losing its rules", func(ctx SpecContext) {
			put(ctx, namespace, policyManifest("base", "policy: {hosts: {db: 10.0.0.1/32}}"))
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(ContainSubstring(rules(80)))
			remove(ctx, namespace, "team")
			Eventually(isReady("base")).Should(HavePrefix("False WouldAllowAll: "))
			Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(ContainSubstring(rules(80)))
			put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
			Eventually(isReady("base")).Should(HavePrefix("True Ready: "))
			Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(22) + "}"))
		})

		It("is restored twice when it was changed by hand, and is then contested", func(ctx SpecContext) {
			s.byHand(ctx, "{"+rules(1)+"}")
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(22) + "}"))
			Eventually(events(ctx, namespace, "base")).WithContext(ctx).Should(ContainElement("PolicyCorrected: Somebody else changed the policy, which was reverted; changed sections: acls"))
			s.byHand(ctx, "{"+rules(2)+"}")
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(22) + "}"))
			Eventually(func(g Gomega) int32 { return get(ctx, namespace, "base")(g).Status.Corrections }).Should(Equal(int32(2)))
			s.byHand(ctx, "{"+rules(3)+"}")
			Eventually(isReady("base")).Should(HavePrefix("False Contested: Somebody else changes the policy again and again (now: acls)"))
			Consistently(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(3) + "}"))
			put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(23)+"}"))
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(23) + "}"))
			Eventually(isReady("base")).Should(HavePrefix("True Ready: "))
		})

		It("is in force in the end although answers are lost and calls fail", func(ctx SpecContext) {
			sent := s.setCount()
			s.LoseAnswer()
			put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(24)+"}"))
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(24) + "}"))
			Eventually(func(g Gomega) string { return get(ctx, namespace, "base")(g).Status.SendingDigest }).Should(BeEmpty())
			Eventually(isReady("base")).Should(HavePrefix("True Ready: "))
			Expect(s.setCount()).To(Equal(sent+1), "what is stored without an answer is not sent again")
			s.failNext(2)
			put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(25)+"}"))
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(25) + "}"))
			Eventually(isReady("base")).Should(HavePrefix("True Ready: "))
		})

		It("ends in the last of a hundred changes", func(ctx SpecContext) {
			for port := 1; port <= 100; port++ {
				put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(port)+"}"))
			}
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(100) + "}"))
			Eventually(isReady("base")).Should(HavePrefix("True Ready: "))
			before := s.setCount()
			Consistently(s.setCount).Should(Equal(before))
		})

		It("stays in force when the last object is deleted", func(ctx SpecContext) {
			remove(ctx, namespace, "base")
			Eventually(events(ctx, namespace, "headscale")).WithContext(ctx).Should(ContainElement(HavePrefix("PolicyLeft: ")))
			Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(100) + "}"))
		})
	})

	It("says what to write where Headscale does not read its policy from its database", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		startOperator(namespace)
		put(ctx, namespace, "{apiVersion: headscale.infrado.cloud/v1beta1, kind: Headscale, metadata: {name: headscale}, spec: {version: v0.29.3, config: {server_url: http://headscale.example}}}")
		put(ctx, namespace, policyManifest("base", "policy: {acls: []}"))
		Eventually(condition(ctx, namespace, "base")).WithContext(ctx).Should(Equal("False PolicyMode: Headscale headscale does not read its policy from its database: write policy: {mode: database} in its spec.config"))
	})

	for _, version := range releases {
		It("warns of a section that is misspelled, with Headscale "+version, func(ctx SpecContext) {
			hs := startHeadscale(ctx, version)
			namespace := newNamespace(ctx)
			newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath()))
			startOperator(namespace)
			for wrong, right := range map[string]string{"acl": "acls", "tag_owner": "tagOwners"} {
				put(ctx, namespace, policyManifest("base", "policy: {acls: [], "+wrong+": {}}"))
				words := fmt.Sprintf("the section %q is probably meant to be %s", wrong, right)
				Eventually(condition(ctx, namespace, "base")).WithContext(ctx).Should(And(
					Or(HavePrefix("True Ready: "), HavePrefix("False Refused: ")), ContainSubstring("; "), ContainSubstring(words)))
				Eventually(events(ctx, namespace, "base")).WithContext(ctx).Should(ContainElement(And(HavePrefix("PolicyWarning: "), ContainSubstring(words))))
			}
		})
	}
})

// Every release takes the name of a section in any case, and all but the first without _ and -.
var _ = Describe("Rules in a section", func() {
	for _, version := range releases {
		It("of another spelling count for Headscale "+version+" as they are known to", func(ctx SpecContext) {
			hs := startHeadscale(ctx, version)
			s := newServer(ctx, newNamespace(ctx), version, headscale.UnixSocket(hs.SocketPath()))
			s.newNode(ctx, hs)
			for i, name := range []string{"acls", "ACLs", "ac_ls", "AC-ls_"} {
				s.byHand(ctx, fmt.Sprintf(`{"groups": {}, "acls": %s}`, rule(1)))
				s.byHand(ctx, fmt.Sprintf(`{"groups": {}, %q: %s}`, name, rule(22+i)))
				if version == "v0.26.1" && i > 1 {
					Expect(inMemory(ctx, hs)).NotTo(ContainSubstring(fmt.Sprintf(`"First": %d`, 22+i)), name)
				} else {
					Expect(inMemory(ctx, hs)).To(ContainSubstring(fmt.Sprintf(`"First": %d`, 22+i)), name)
				}
			}
		})

		for _, name := range []string{"ACLs", "ac_ls", "acl-S"} {
			It(name+" are rules, and are not replaced by none, with Headscale "+version, func(ctx SpecContext) {
				hs := startHeadscale(ctx, version)
				namespace := newNamespace(ctx)
				s := newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath()))
				s.newNode(ctx, hs)
				startOperator(namespace)
				put(ctx, namespace, policyManifest("groups", `policy: {Groups: {"group:g": ["alice@"]}}`))
				Eventually(condition(ctx, namespace, "groups")).WithContext(ctx).Should(HavePrefix("True Ready: "))
				put(ctx, namespace, policyManifest("rules", "policy: {"+name+": "+rule(22)+"}"))
				Eventually(condition(ctx, namespace, "rules")).WithContext(ctx).Should(Equal("True Ready: Headscale has it in its policy, joined with 1 more"))
				Expect(inMemory(ctx, hs)).To(ContainSubstring(`"First": 22`))
				put(ctx, namespace, policyManifest("more", "policy: {acls: "+rule(23)+"}"))
				Eventually(condition(ctx, namespace, "more")).WithContext(ctx).Should(Equal("True Ready: Headscale has it in its policy, joined with 2 more"))
				Expect(inMemory(ctx, hs)).To(And(ContainSubstring(`"First": 22`), ContainSubstring(`"First": 23`)))
				remove(ctx, namespace, "more")
				Eventually(func() string { return inMemory(ctx, hs) }).WithContext(ctx).ShouldNot(ContainSubstring(`"First": 23`))
				remove(ctx, namespace, "rules")
				Eventually(condition(ctx, namespace, "groups")).WithContext(ctx).Should(HavePrefix("False WouldAllowAll: "))
				Expect(inMemory(ctx, hs)).To(ContainSubstring(`"First": 22`))
			})
		}

		It("twice, in two spellings, are refused before Headscale "+version+" has them", func(ctx SpecContext) {
			hs := startHeadscale(ctx, version)
			namespace := newNamespace(ctx)
			s := newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath()))
			startOperator(namespace)
			put(ctx, namespace, policyManifest("both", "policy: {acls: "+rule(22)+", ac_ls: "+rule(23)+"}"))
			Eventually(condition(ctx, namespace, "both")).WithContext(ctx).Should(
				HavePrefix(`False InvalidPolicy: spec.policy cannot be used: "acls" stands twice, first as "ac_ls": neither case nor _ and - count`))
			Expect(s.setCount()).To(BeZero())
		})
	}
})

// A new operator finds out what became of what another one was about to do.
var _ = Describe("An operator that ends between two steps", func() {
	It("is followed by one that has the policy in force, and what was refused out of memory", func(ctx SpecContext) {
		hs := startHeadscale(ctx, "v0.29.3")
		namespace := newNamespace(ctx)
		s := newServer(ctx, namespace, "v0.29.3", headscale.UnixSocket(hs.SocketPath()))
		stop := startOperator(namespace)
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
		Eventually(condition(ctx, namespace, "base")).WithContext(ctx).Should(HavePrefix("True Ready"))
		stop()
		before := s.setCount()

		stop = startOperator(namespace)
		Consistently(s.setCount).Should(Equal(before), "what is in force is not sent again")
		stop()

		base := get(ctx, namespace, "base")(NewWithT(GinkgoT()))
		noted := base.DeepCopy()
		noted.Status.SendingDigest = "was-sent"
		Expect(admin.Status().Patch(ctx, noted, client.MergeFrom(base))).To(Succeed())
		// What is stored may not be in memory until it was taken: that it was sent again is not enough.
		s.failNext(1)
		startOperator(namespace)
		Eventually(s.setCount).Should(Equal(before + 2))
		Eventually(func(g Gomega) string { return get(ctx, namespace, "base")(g).Status.SendingDigest }).Should(BeEmpty())
		Consistently(s.setCount).Should(Equal(before + 2))
	})

	It("is followed by one that says, once, that the last HeadscalePolicy was deleted meanwhile", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		s := newServer(ctx, namespace, "v0.29.3", headscale.UnixSocket(startHeadscale(ctx, "v0.29.3").SocketPath()))
		stop := startOperator(namespace)
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
		Eventually(condition(ctx, namespace, "base")).WithContext(ctx).Should(HavePrefix("True Ready"))
		stop()
		remove(ctx, namespace, "base")
		left := func(g Gomega) (found []string) {
			for _, event := range events(ctx, namespace, "headscale")(g) {
				if strings.HasPrefix(event, "PolicyLeft: ") {
					found = append(found, event)
				}
			}
			return found
		}
		Expect(left(NewWithT(GinkgoT()))).To(BeEmpty())
		stop = startOperator(namespace)
		Eventually(left).WithContext(ctx).Should(HaveLen(1))
		stop()
		startOperator(namespace)
		Consistently(left).WithContext(ctx).Should(HaveLen(1))
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(22) + "}"))

		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(23)+"}"))
		Eventually(condition(ctx, namespace, "base")).WithContext(ctx).Should(HavePrefix("True Ready"))
		remove(ctx, namespace, "base")
		Eventually(func(g Gomega) bool {
			hs := &v1beta1.Headscale{}
			g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "headscale"}, hs)).To(Succeed())
			return hs.Status.HasPolicies
		}).WithContext(ctx).Should(BeFalse())
	})
})

var _ = Describe("The API server", func() {
	It("keeps a policy whole, and headscaleRef as it is", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		put(ctx, namespace, policyManifest("a", `policy: {anything: {of: [1, {kind: true}], "with:colon": null}}`))
		stored := get(ctx, namespace, "a")(NewWithT(GinkgoT()))
		Expect(string(stored.Spec.Policy.Raw)).To(MatchJSON(`{"anything": {"of": [1, {"kind": true}], "with:colon": null}}`))
		Expect(*stored.Spec.Order).To(Equal(int32(v1beta1.DefaultOrder)))
		Expect(send(ctx, namespace, strings.Replace(policyManifest("a", "policy: {acls: []}"), "headscaleRef: headscale", "headscaleRef: other", 1))).To(
			MatchError(ContainSubstring("headscaleRef cannot be changed")))
	})
})
