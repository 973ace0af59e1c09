package preauthkeys_test

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
)

// mapPolling is how often a node asks for a map.
const mapPolling = 300 * time.Millisecond

// lockDatabase has the database of the Headscale take no writes, as another writer would: SQLite locks
// byte 120 of the shared memory of its write-ahead log for that.
func (t *tailnet) lockDatabase() (unlock func()) {
	GinkgoHelper()
	shared, err := os.OpenFile(t.database()+"-shm", os.O_RDWR, 0)
	Expect(err).NotTo(HaveOccurred())
	lock := &syscall.Flock_t{Type: syscall.F_WRLCK, Start: 120, Len: 1}
	Eventually(func() error { return syscall.FcntlFlock(shared.Fd(), syscall.F_SETLK, lock) }).Should(Succeed())
	return func() { _ = shared.Close() }
}

// setPolicy allows one port.
func (t *tailnet) setPolicy(ctx context.Context, port int) {
	GinkgoHelper()
	t.apply(ctx, fmt.Sprintf("{kind: HeadscalePolicy, metadata: {name: base}, spec: {headscaleRef: headscale, policy: {acls: [{action: accept, src: ['*'], dst: ['*:%d']}]}}}", port))
}

// v0.29.3 takes a policy into memory before it has stored it, and says nothing of that: only its nodes
// show it.
var _ = Describe("When v0.29.3 cannot store a policy, a node", func() {
	It("has what Headscale says again, once the HeadscalePolicy says that", func(ctx SpecContext) {
		o := newOperators(ctx)
		t := newTailnets(ctx, o, []string{"v0.29.3"})[0]
		k := t.newObject(ctx, "web")
		key, _ := k.heals(ctx)
		node, err := nodetest.New("node")
		Expect(err).NotTo(HaveOccurred())
		Expect(node.Register(ctx, t.server.URL(), key)).To(BeTrue())
		told := func() (string, error) { return node.Filter(ctx, t.server.URL()) }
		t.setPolicy(ctx, 22)
		Eventually(told).WithContext(ctx).WithPolling(mapPolling).Should(ContainSubstring(`"First":22,`))
		k.heals(ctx) // Nothing else is to be written while the database is locked.

		unlock := t.lockDatabase()
		DeferCleanup(unlock)
		t.setPolicy(ctx, 1)
		Eventually(told).WithContext(ctx).WithPolling(mapPolling).Should(ContainSubstring(`"First":1,`), "what it does")
		Eventually(t.storedPolicy).WithContext(ctx).WithArguments(ctx).Should(ContainSubstring(`"*:22"`), "what it says")
		began := time.Now()
		t.setPolicy(ctx, 22)
		unlock()
		Eventually(told).WithContext(ctx).WithPolling(mapPolling).Should(ContainSubstring(`"First":22,`))
		seen("a policy that could not be stored", t.version, time.Since(began))
		Eventually(t.storedPolicy).WithContext(ctx).WithArguments(ctx).Should(ContainSubstring(`"*:22"`))
		Consistently(told).WithContext(ctx).WithPolling(mapPolling).WithTimeout(refusalTime).Should(ContainSubstring(`"First":22,`))
	})
})

// storedPolicy is the policy that Headscale says it has.
func (t *tailnet) storedPolicy(ctx context.Context) (string, error) {
	policy, err := t.direct.GetPolicy(ctx)
	return policy.Text, err
}
