package policy

import (
	"fmt"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/internal/headscale"
)

var _ = Describe("A Headscale that answers slowly", func() {
	It("keeps no policies of another Headscale waiting, and has its own in the end", func(ctx SpecContext) {
		const number = 120
		socket := headscale.UnixSocket(startHeadscale(ctx, "v0.29.3").SocketPath())
		other := headscale.UnixSocket(startHeadscale(ctx, "v0.29.3").SocketPath())
		quick, slow := newNamespace(ctx), newNamespace(ctx)
		startOperator()
		newServer(ctx, quick, "v0.29.3", socket)
		var calls atomic.Int32
		newServer(ctx, slow, "v0.29.3", instancetest.Slowly(other, &calls))
		for i := range number {
			put(ctx, slow, policyManifest(fmt.Sprintf("slow-%02d", i), "policy: {acls: "+rule(i+1)+"}"))
		}
		Eventually(calls.Load).WithContext(ctx).WithTimeout(time.Minute).Should(BeNumerically(">", 0))
		for i := range 3 {
			began, before := time.Now(), calls.Load()
			name := fmt.Sprintf("quick-%d", i)
			put(ctx, quick, policyManifest(name, "policy: {acls: "+rule(i+1)+"}"))
			Eventually(condition(ctx, quick, name)).WithContext(ctx).WithTimeout(time.Minute).Should(HavePrefix("True Ready: "))
			took := time.Since(began)
			AddReportEntry(fmt.Sprintf("ready after %s", took.Round(time.Millisecond)))
			Expect(calls.Load()-before).To(BeNumerically("<", number), "it does not wait until the slow one has answered all")
		}
		Eventually(condition(ctx, slow, "slow-00")).WithContext(ctx).WithTimeout(time.Minute).Should(HavePrefix("True Ready: "))
	})
})
