package instancetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// Suite is what the suite of a kind whose objects refer to a Headscale has, for specs that are the
// same for more than one kind.
type Suite struct {
	Cluster *Cluster
	// Objects is what the kind's objects are called, such as users.
	Objects string
	// Socket starts a real Headscale of a release.
	Socket func(ctx context.Context, version string) headscale.Dialer
	// StartOperator starts an operator that watches all namespaces.
	StartOperator func()
	// NewServer creates a Headscale named headscale in a namespace, of a release and with fields of its spec.
	NewServer func(ctx context.Context, namespace, version string, dial headscale.Dialer, spec ...string)
	// Manifest is an object of a name with further fields of its spec, such as "headscaleNamespace: a".
	Manifest func(name, fields string) string
	// Condition reads an object's condition Ready, as Ready returns it.
	Condition func(ctx context.Context, namespace, name string) func(Gomega) string
}

// DescribeSecretReads has a spec that the API key of a Headscale is read where it is needed, once.
func (s *Suite) DescribeSecretReads() bool {
	return Describe("The API key of a Headscale", func() {
		It("is not read for objects that have no access, or whose Headscale is out of reach", func(ctx SpecContext) {
			socket := s.Socket(ctx, "v0.29.3")
			reads, enough := s.Cluster.WatchSecretReads()
			s.StartOperator()
			enough()
			namespaces := map[string]string{}
			for reason, spec := range map[string][]string{
				"NotAllowed": nil, "ScaledToZero": {"replicas: 0"}, "ManagerOff": {"api_key: {auto_manage: false}"}, "Ready": nil,
			} {
				namespace := s.Cluster.NewNamespace(ctx)
				namespaces[reason] = namespace
				s.NewServer(ctx, namespace, "v0.29.3", socket, spec...)
				from := namespace
				if reason == "NotAllowed" {
					from = s.Cluster.NewNamespace(ctx)
				}
				name := fmt.Sprintf("object-%d", len(namespaces))
				s.Cluster.Apply(ctx, from, s.Manifest(name, "headscaleNamespace: "+namespace))
				Eventually(s.Condition(ctx, from, name)).WithContext(ctx).Should(ContainSubstring(" " + reason + ": "))
			}
			unused := s.Cluster.NewNamespace(ctx)
			s.NewServer(ctx, unused, "v0.29.3", socket)
			for _, reason := range []string{"NotAllowed", "ScaledToZero", "ManagerOff"} {
				Expect(reads.Of(namespaces[reason])).To(BeZero(), reason)
			}
			Expect(reads.Of(unused)).To(BeZero(), "nothing refers to it")
			Expect(reads.Of(namespaces["Ready"])).To(Equal(1), "one GET, and it is in memory")
		})
	})
}

// DescribeSlow has a spec that a Headscale that answers slowly keeps no objects of another waiting. Of its
// own objects, of which each is made by a call, more than some are done within a time; done reads that.
func (s *Suite) DescribeSlow(fields string, moreThan int, within time.Duration, done func(ctx context.Context, namespace, name string) func(Gomega) bool) bool {
	return Describe("A Headscale that answers slowly", func() {
		It("keeps no "+s.Objects+" of another Headscale waiting, and has its own in the end", func(ctx SpecContext) {
			const number = 120
			socket := s.Socket(ctx, "v0.29.3")
			quick, slow := s.Cluster.NewNamespace(ctx), s.Cluster.NewNamespace(ctx)
			s.StartOperator()
			s.NewServer(ctx, quick, "v0.29.3", socket)
			timed := func(name string) time.Duration {
				GinkgoHelper()
				began := time.Now()
				s.Cluster.Apply(ctx, quick, s.Manifest(name, ""))
				Eventually(s.Condition(ctx, quick, name)).WithContext(ctx).WithTimeout(time.Minute).Should(HavePrefix("True Ready: "))
				return time.Since(began)
			}
			usual := timed("usual")
			var calls atomic.Int32
			s.NewServer(ctx, slow, "v0.29.3", Slowly(socket, &calls))
			name := func(i int) string { return fmt.Sprintf("slow-%02d", i) }
			for i := range number {
				s.Cluster.Apply(ctx, slow, s.Manifest(name(i), fields))
			}
			Eventually(calls.Load).WithContext(ctx).WithTimeout(time.Minute).Should(BeNumerically(">", 0))
			for i := range 3 {
				before := calls.Load()
				took := timed(fmt.Sprintf("quick-%d", i))
				AddReportEntry(fmt.Sprintf("ready after %s, without the slow one after %s", took.Round(time.Millisecond), usual.Round(time.Millisecond)))
				Expect(calls.Load()-before).To(BeNumerically("<", number), "it does not wait until the slow one has answered all")
			}
			By("one after the other")
			Eventually(func(g Gomega) {
				ready := 0
				for i := range number {
					if done(ctx, slow, name(i))(g) {
						ready++
					}
				}
				g.Expect(ready).To(BeNumerically(">", moreThan))
			}).WithContext(ctx).WithTimeout(within).Should(Succeed())
		})
	})
}
