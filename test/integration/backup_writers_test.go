package integration_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/process"
)

// replicateInto has a Litestream that is not the operator's replicate the database of a Headscale, which
// has no backup of its own, into an incarnation of another one.
func (b *backedUp) replicateInto(incarnation string) *process.Process {
	GinkgoHelper()
	dir, err := os.MkdirTemp(guard.Dir(), "stranger-")
	Expect(err).NotTo(HaveOccurred())
	config := filepath.Join(dir, "litestream.yml")
	Expect(os.WriteFile(config, fmt.Appendf(nil, `
dbs:
  - path: %s
    meta-path: %s
    replica: {type: s3, bucket: %s, path: headscale/%s, endpoint: "http://%s", region: us-east-1, force-path-style: true}
`, b.pod.HostPath(containerHeadscale, databasePath), filepath.Join(dir, "meta"), bucket, incarnation, b.storage.address), 0o600)).To(Succeed())
	stranger, err := process.Start(process.Command{
		Name: "stranger", Path: backupProgram("litestream"), Guard: guard, Output: GinkgoWriter,
		Args: []string{"replicate", "-config=" + config},
		Env:  []string{"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { stranger.Kill() })
	return stranger
}

// awaitEvent waits until there is an event with a reason about the Headscale.
func (b *backedUp) awaitEvent(ctx context.Context, reason string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		events := &eventsv1.EventList{}
		g.Expect(admin.List(ctx, events, client.InNamespace(b.key.Namespace))).To(Succeed())
		g.Expect(events.Items).To(ContainElement(And(HaveField("Reason", reason), HaveField("Regarding.Name", b.key.Name), HaveField("Type", "Warning"))))
	}).Should(Succeed())
}

var _ = Describe("Two writers on one replica", func() {
	var s3 *storage
	BeforeEach(func(ctx SpecContext) { s3 = newStorage(ctx) })

	It("do not meet where two Headscales have the same replica", func(ctx SpecContext) {
		first, second := newBackedUp(ctx, s3, "verify_interval: 3s"), newBackedUp(ctx, s3, "verify_interval: 3s")
		for range 2 {
			for _, hs := range []*backedUp{first, second} {
				hs.awaitReady(ctx)
				name := fmt.Sprintf("of-%s-%d", hs.key.Namespace, time.Now().UnixNano())
				hs.addUser(ctx, name)
				hs.awaitReplicated(ctx, name)
			}
			Expect(first.incarnation(ctx)).NotTo(Equal(second.incarnation(ctx)))
			for _, hs := range []*backedUp{first, second} {
				hs.awaitVerified(ctx, v1beta1.VerificationPassed, "")
				before, users := hs.incarnation(ctx), hs.users(ctx)
				hs.lose()
				hs.run()
				hs.awaitNext(ctx, before)
				Expect(hs.users(ctx)).To(ConsistOf(users), "what it had, and nothing of the other one's")
			}
		}
		for _, hs := range []*backedUp{first, second} {
			hs.awaitBackedUp(ctx, metav1.ConditionTrue, v1beta1.ReasonReplicating)
		}
	})

	It("are noticed where a stranger writes into the path of an incarnation", func(ctx SpecContext) {
		hs, other := newBackedUp(ctx, s3, "verify_interval: 3s"), newBackedUp(ctx, s3, "")
		other.awaitReady(ctx)
		other.patch(ctx, `{"spec":{"backup":null}}`)
		Eventually(func() *v1beta1.BackupStatus { return other.get(ctx).Status.Backup }).Should(BeNil())
		other.awaitReady(ctx)
		hs.awaitReady(ctx)
		hs.addUser(ctx, "ada-lovelace")
		hs.awaitReplicated(ctx, "ada-lovelace")
		hs.awaitVerified(ctx, v1beta1.VerificationPassed, "")

		stranger := other.replicateInto(hs.incarnation(ctx))
		// Whoever wrote last is what is restored, and Headscale's own Litestream writes now and then, too.
		Eventually(func() *metav1.Condition {
			other.addUser(ctx, fmt.Sprintf("another-%d", time.Now().UnixNano()))
			return meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionBackedUp)
		}).WithContext(ctx).WithTimeout(3 * time.Minute).WithPolling(time.Second).Should(HaveValue(And(
			HaveField("Status", metav1.ConditionFalse), HaveField("Reason", v1beta1.ReasonVerificationFailed))))
		hs.awaitEvent(ctx, v1beta1.ReasonVerificationFailed)
		AddReportEntry("what is said of a stranger in the path", hs.get(ctx).Status.BackupVerification.Message, ReportEntryVisibilityAlways)
		hs.awaitReady(ctx)
		Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"), "Headscale runs")

		By("another path, as the page says, where the whole database is replicated")
		stranger.Kill()
		hs.patch(ctx, `{"spec":{"backup":{"replica":{"path":"headscale/elsewhere"}}}}`)
		hs.awaitVerified(ctx, v1beta1.VerificationPassed, "")
		hs.awaitBackedUp(ctx, metav1.ConditionTrue, v1beta1.ReasonReplicating)
	})
})
