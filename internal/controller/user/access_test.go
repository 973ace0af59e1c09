package user

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/headscale"
)

var _ = Describe("A namespace that has access by its label", func() {
	It("has none any more when another team makes it anew", func(ctx SpecContext) {
		hs := startHeadscale(ctx, "v0.29.3")
		namespace, team := newNamespace(ctx), newNamespace(ctx, "team=a")
		startOperator()
		s := newServer(ctx, namespace, "v0.29.3", headscale.UnixSocket(hs.SocketPath()), "access: [{users: true, namespaces: {selector: {matchLabels: {team: a}}}}]")
		wanted := userManifest("user", "username: guest, headscaleNamespace: "+namespace)
		apply(ctx, team, wanted)
		Eventually(condition(ctx, team, "user")).WithContext(ctx).Should(HavePrefix("True Ready: "))

		By("deleting it, as the namespace controller does")
		object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team}}
		Expect(admin.Delete(ctx, object)).To(Succeed())
		deleteUser(ctx, team, "user")
		Eventually(get(ctx, team, "user")).WithContext(ctx).Should(BeNil())
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
		object.Spec.Finalizers = nil
		Expect(admin.SubResource("finalize").Update(ctx, object)).To(Succeed())
		Expect(s.names(ctx)(NewWithT(GinkgoT()))).To(BeEmpty(), "its user goes with it")

		another := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team, Labels: map[string]string{"team": "b"}}}
		Eventually(func() error { return admin.Create(ctx, another.DeepCopy()) }).WithContext(ctx).Should(Succeed())
		Eventually(func() error { return cluster.Send(ctx, team, wanted) }).WithContext(ctx).Should(Succeed(), "admission sees the new namespace a moment later")
		Eventually(condition(ctx, team, "user")).WithContext(ctx).Should(HavePrefix("False NotAllowed: "))
		Consistently(s.names(ctx)).WithContext(ctx).Should(BeEmpty())
	})
})

var _ = Describe("A user that has a node", func() {
	for _, version := range releases {
		// Up to a restart, v0.29.3 lists the node under the old name.
		It("is known to have it after it was renamed, with Headscale "+version, func(ctx SpecContext) {
			hs := startHeadscale(ctx, version)
			namespace := newNamespace(ctx)
			startOperator(namespace)
			s := newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath()))
			apply(ctx, namespace, userManifest("user", "deletionPolicy: Delete, username: before"))
			Eventually(condition(ctx, namespace, "user")).WithContext(ctx).Should(HavePrefix("True Ready: "))
			node := registerNode(ctx, hs, version, "before")
			apply(ctx, namespace, userManifest("user", "deletionPolicy: Delete, username: after"))
			Eventually(condition(ctx, namespace, "user")).WithContext(ctx).Should(HavePrefix("True Ready: User after "))
			deleteUser(ctx, namespace, "user")
			Eventually(condition(ctx, namespace, "user")).WithContext(ctx).Should(And(HavePrefix("False HasNodes: "), ContainSubstring(fmt.Sprintf("(id %d)", node))))
			Expect(s.names(ctx)(NewWithT(GinkgoT()))).To(ConsistOf("after"))
		})
	}
})
