package policy

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
)

// doubter is a connection to a Headscale whose database takes no policy that opens port 1: v0.29.3 has that in
// memory then, and what is stored cannot be sent again until the network is back.
type doubter struct {
	*instancetest.Endpoint
	hs *env.Headscale
	// patient waits longer than Headscale does for its database.
	patient *headscale.Client
	// down is whether nothing reaches Headscale.
	down *atomic.Bool
}

func (d *doubter) SetPolicy(ctx context.Context, text string) (headscale.Policy, error) {
	if d.down.Load() {
		return headscale.Policy{}, errDead
	}
	if !strings.Contains(text, `"*:1"`) {
		return d.Endpoint.SetPolicy(ctx, text)
	}
	unlock := lockDatabase(d.hs)
	defer unlock()
	d.down.Store(true)
	return d.patient.SetPolicy(ctx, text)
}

// Nobody would send anything to a Headscale without HeadscalePolicies any more.
var _ = Describe("A policy that v0.29.3 has refused, and has in memory", func() {
	var s *server
	var hs *env.Headscale
	var down *atomic.Bool
	var namespace string
	var stop func()

	memory := func(ctx context.Context) func() string { return func() string { return inMemory(ctx, hs) } }

	// refuse has a HeadscalePolicy that opens port 1 be refused, beside one that opens port 22, and be in memory.
	refuse := func(ctx context.Context, name string) {
		GinkgoHelper()
		put(ctx, namespace, policyManifest(name, "order: 1, policy: {acls: "+rule(1)+"}"))
		Eventually(down.Load).WithContext(ctx).Should(BeTrue())
		Eventually(memory(ctx)).WithContext(ctx).Should(ContainSubstring(`"First": 1,`))
		Eventually(condition(ctx, namespace, name)).WithContext(ctx).WithTimeout(slow).Should(HavePrefix("False EndpointUnreachable: "))
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(22) + "}"))
		Expect(inMemory(ctx, hs)).To(ContainSubstring(`"First": 1,`))
	}

	BeforeEach(func(ctx SpecContext) {
		hs, down, namespace = startHeadscale(ctx, "v0.29.3"), &atomic.Bool{}, newNamespace(ctx)
		patient := headscale.NewClient(headscale.UnixSocket(hs.SocketPath()), headscale.WithCallTimeout(time.Minute))
		DeferCleanup(patient.Close)
		s = &server{}
		s.Server = cluster.NewServer(ctx, &instancetest.ServerOptions{
			Namespace: namespace, Version: "v0.29.3", Dial: headscale.UnixSocket(hs.SocketPath()), Config: []string{"policy: {mode: database}"},
			API: func(connection *instancetest.Endpoint) instance.API { return &doubter{connection, hs, patient, down} },
		})
		stop = startOperator(namespace)
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
		Eventually(condition(ctx, namespace, "base")).WithContext(ctx).Should(HavePrefix("True Ready: "))
	})

	left := func(ctx context.Context) {
		GinkgoHelper()
		Eventually(memory(ctx)).WithContext(ctx).WithTimeout(slow).ShouldNot(ContainSubstring(`"First": 1,`))
		Eventually(events(ctx, namespace, "headscale")).WithContext(ctx).Should(ContainElement(HavePrefix("PolicyLeft: ")))
		Expect(inMemory(ctx, hs)).To(ContainSubstring(`"First": 22`))
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(22) + "}"))
	}

	It("is out of memory before the last HeadscalePolicy is said to be gone", func(ctx SpecContext) {
		refuse(ctx, "base")
		remove(ctx, namespace, "base")
		Consistently(events(ctx, namespace, "headscale")).WithContext(ctx).ShouldNot(ContainElement(HavePrefix("PolicyLeft: ")))
		down.Store(false)
		left(ctx)
	}, SpecTimeout(2*slow))

	It("is so, too, where no operator ran when the last HeadscalePolicy was deleted", func(ctx SpecContext) {
		refuse(ctx, "base")
		stop()
		remove(ctx, namespace, "base")
		down.Store(false)
		startOperator(namespace)
		left(ctx)
	}, SpecTimeout(2*slow))

	It("is out of memory after the HeadscalePolicy was deleted that has it, and others stay", func(ctx SpecContext) {
		refuse(ctx, "a-first")
		stop()
		remove(ctx, namespace, "a-first")
		down.Store(false)
		startOperator(namespace)
		Eventually(memory(ctx)).WithContext(ctx).WithTimeout(slow).ShouldNot(ContainSubstring(`"First": 1,`))
		Eventually(condition(ctx, namespace, "base")).WithContext(ctx).Should(Equal("True Ready: Headscale has it as its policy"))
		Expect(inMemory(ctx, hs)).To(ContainSubstring(`"First": 22`))
	}, SpecTimeout(2*slow))
})
