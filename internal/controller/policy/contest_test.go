package policy

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

var _ = Describe("A policy that somebody else changes again and again", func() {
	var s *server
	var namespace string
	var stop func()
	var isReady func(g Gomega) string

	isContested := func(g Gomega) bool {
		return meta.IsStatusConditionTrue(get(context.Background(), namespace, "base")(g).Status.Conditions, v1beta1.ConditionContested)
	}
	// staysContested is that of the other one, and nothing is written.
	staysContested := func(ctx context.Context) {
		GinkgoHelper()
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("False Contested: "))
		Expect(isContested(NewWithT(GinkgoT()))).To(BeTrue())
		sent, version := s.setCount(), get(ctx, namespace, "base")(NewWithT(GinkgoT())).ResourceVersion
		Consistently(func(g Gomega) string { return get(ctx, namespace, "base")(g).ResourceVersion }).WithContext(ctx).Should(Equal(version))
		Expect(s.setCount()).To(Equal(sent))
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(3) + "}"))
	}
	// anHourPasses since the last change was reverted.
	anHourPasses := func(ctx context.Context) {
		GinkgoHelper()
		base := get(ctx, namespace, "base")(NewWithT(GinkgoT()))
		earlier := base.DeepCopy()
		earlier.Status.CorrectedAt = &metav1.Time{Time: base.Status.CorrectedAt.Add(-rowEnds)}
		Expect(admin.Status().Patch(ctx, earlier, client.MergeFrom(base))).To(Succeed())
	}

	BeforeEach(func(ctx SpecContext) {
		namespace = newNamespace(ctx)
		s = newServer(ctx, namespace, "v0.29.3", headscale.UnixSocket(startHeadscale(ctx, "v0.29.3").SocketPath()))
		isReady = condition(context.Background(), namespace, "base")
		stop = startOperator(namespace)
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
		for times := range int32(mostCorrections) {
			s.byHand(ctx, "{"+rules(int(times)+1)+"}")
			Eventually(func(g Gomega) int32 { return get(ctx, namespace, "base")(g).Status.Corrections }).WithContext(ctx).Should(Equal(times + 1))
		}
		s.byHand(ctx, "{"+rules(3)+"}")
		staysContested(ctx)
	})

	It("is given way to also after Headscale was away, until a HeadscalePolicy changes", func(ctx SpecContext) {
		s.SetRefused(fmt.Errorf("%w: connection refused", headscale.ErrUnavailable))
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("False EndpointUnreachable: "))
		anHourPasses(ctx)
		Expect(isContested(NewWithT(GinkgoT()))).To(BeTrue())
		s.SetRefused(nil)
		staysContested(ctx)

		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(23)+"}"))
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
		Expect(isContested(NewWithT(GinkgoT()))).To(BeFalse())
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(23) + "}"))
	})

	It("is given way to also by an operator that starts while Headscale is away, until it is set back", func(ctx SpecContext) {
		stop()
		s.SetRefused(fmt.Errorf("%w: connection refused", headscale.ErrUnavailable))
		anHourPasses(ctx)
		stop = startOperator(namespace)
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("False EndpointUnreachable: "))
		s.SetRefused(nil)
		staysContested(ctx)
		stop()
		asked := s.Lists.Load()
		startOperator(namespace)
		Eventually(s.Lists.Load).Should(BeNumerically(">", asked))
		staysContested(ctx)

		s.byHand(ctx, "{"+rules(22)+"}")
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
		Expect(isContested(NewWithT(GinkgoT()))).To(BeFalse())
		s.byHand(ctx, "{"+rules(4)+"}")
		Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{"+rules(22)+"}"), "another row begins")
	})
})
