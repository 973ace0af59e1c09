package user

import (
	"context"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
)

// setFinalizers writes the finalizers of a HeadscaleUser, a JSON list.
func setFinalizers(ctx context.Context, namespace, name, finalizers string) {
	GinkgoHelper()
	user := &v1beta1.HeadscaleUser{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	Expect(admin.Patch(ctx, user, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":`+finalizers+`}}`)))).To(Succeed())
}

// One object has the user before and wants another's name, which it does not get. A second one wants
// the user before.
var _ = Describe("A HeadscaleUser that wants the present name of another one's user", func() {
	var hs *env.Headscale
	var namespace string
	var s *server
	const policy = "deletionPolicy: "

	arrange := func(ctx context.Context, deletion string) {
		GinkgoHelper()
		hs, namespace = startHeadscale(ctx, "v0.29.3"), newNamespace(ctx)
		startOperator(namespace)
		s = newServer(ctx, namespace, "v0.29.3", headscale.UnixSocket(hs.SocketPath()))
		for _, name := range []string{"taken", "before"} {
			apply(ctx, namespace, userManifest(name, policy+deletion+", username: "+name))
			Eventually(condition(ctx, namespace, name)).WithContext(ctx).Should(HavePrefix("True Ready: "))
		}
		apply(ctx, namespace, userManifest("before", policy+deletion+", username: taken"))
		Eventually(condition(ctx, namespace, "before")).WithContext(ctx).Should(HavePrefix("False Conflict: "))
	}
	// contend deletes the first one, which stays for a while, and then has the second one want its user.
	contend := func(ctx context.Context) {
		GinkgoHelper()
		deleteUser(ctx, namespace, "before")
		apply(ctx, namespace, userManifest("second", "username: before"))
		Eventually(condition(ctx, namespace, "second")).WithContext(ctx).Should(HavePrefix("False Conflict: User before "))
	}

	It("gets one when that user is deleted", func(ctx SpecContext) {
		arrange(ctx, "Delete")
		node := registerNode(ctx, hs, "v0.29.3", "before")
		contend(ctx)
		_, err := stub(hs).DeleteNode(ctx, &v1.DeleteNodeRequest{NodeId: node})
		Expect(err).NotTo(HaveOccurred())
		Eventually(get(ctx, namespace, "before")).WithContext(ctx).Should(BeNil())
		Eventually(condition(ctx, namespace, "second")).WithContext(ctx).Should(HavePrefix("True Ready: User before "))
	})

	It("takes it over when it is left there", func(ctx SpecContext) {
		arrange(ctx, "Retain")
		user := s.named(ctx, "before")
		setFinalizers(ctx, namespace, "before", `["example.com/kept"]`)
		contend(ctx)
		setFinalizers(ctx, namespace, "before", `null`)
		Eventually(condition(ctx, namespace, "second")).WithContext(ctx).Should(HavePrefix("True Ready: User before "))
		Expect(get(ctx, namespace, "second")(NewWithT(GinkgoT())).Status.UserID).To(Equal(user.ID))
	})
})

var _ = Describe("A HeadscaleUser that waits because Headscale 0.28.0 deletes all pre-auth keys", func() {
	var namespace string
	var s *server

	BeforeEach(func(ctx SpecContext) {
		hs := startHeadscale(ctx, "v0.28.0")
		namespace = newNamespace(ctx)
		startOperator() // It looks at nothing again of which nothing tells.
		s = newServer(ctx, namespace, "v0.28.0", headscale.UnixSocket(hs.SocketPath()))
		apply(ctx, namespace, userManifest("waits", "username: waits"))
		apply(ctx, namespace, userManifest("other", "username: other, deletionPolicy: Delete"))
		for _, name := range []string{"waits", "other"} {
			Eventually(condition(ctx, namespace, name)).WithContext(ctx).Should(HavePrefix("True Ready: "))
		}
		deleteUser(ctx, namespace, "waits")
		Eventually(condition(ctx, namespace, "waits")).WithContext(ctx).Should(HavePrefix("False KeysAtRisk: "))
	})

	AfterEach(func(ctx SpecContext) {
		Eventually(get(ctx, namespace, "waits")).WithContext(ctx).Should(BeNil())
		Expect(s.names(ctx)(NewWithT(GinkgoT()))).To(BeEmpty())
	})

	It("is deleted once it is the last user", func(ctx SpecContext) {
		deleteUser(ctx, namespace, "other")
		Eventually(get(ctx, namespace, "other")).WithContext(ctx).Should(BeNil())
	})

	It("is deleted once somebody has deleted the last other user by hand", func(ctx SpecContext) {
		apply(ctx, namespace, userManifest("other", "username: other, deletionPolicy: Retain"))
		Eventually(func(g Gomega) { g.Expect(get(ctx, namespace, "other")(g).Finalizers).To(BeEmpty()) }).WithContext(ctx).Should(Succeed())
		deleteUser(ctx, namespace, "other")
		Eventually(get(ctx, namespace, "other")).WithContext(ctx).Should(BeNil())
		Expect(s.Direct.DeleteUser(ctx, s.named(ctx, "other").ID)).To(Succeed())
	})
})
