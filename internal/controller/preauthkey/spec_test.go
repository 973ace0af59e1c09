package preauthkey

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/headscale"
)

var _ = Describe("A HeadscalePreAuthKey of the newest Headscale", Ordered, func() {
	const version = "v0.29.3"
	var s *server
	var namespace string

	BeforeAll(func(ctx SpecContext) {
		namespace = newNamespace(ctx)
		s = newServer(ctx, namespace, version, headscale.UnixSocket(startServer(ctx, version)))
		startOperator(namespace)
	})

	good := func(ctx SpecContext, name string, matches func(*headscale.PreAuthKey) bool) (key headscale.PreAuthKey) {
		GinkgoHelper()
		Eventually(func(g Gomega) { key = s.good(ctx, namespace, name, "key", matches)(g) }).WithContext(ctx).Should(Succeed())
		return key
	}

	It("may name its user by the id that it has in Headscale", func(ctx SpecContext) {
		made, err := s.Direct.CreateUser(ctx, headscale.NewUser{Name: "byid"})
		Expect(err).NotTo(HaveOccurred())
		apply(ctx, namespace, keyManifest("byid", fmt.Sprintf("userId: %d", made.ID)))
		Expect(good(ctx, "byid", of(made.ID)).UserID).To(Equal(made.ID))
		apply(ctx, namespace, keyManifest("noid", "userId: 4711"))
		Eventually(condition(ctx, namespace, "noid")).WithContext(ctx).Should(HavePrefix("False UserMissing: "))
	})

	It("no longer warns of a tag when the policy knows it", func(ctx SpecContext) {
		_, err := s.Direct.SetPolicy(ctx, `{"acls": []}`)
		Expect(err).NotTo(HaveOccurred())
		apply(ctx, namespace, keyManifest("tags", "tags: ['tag:web']"))
		isReady := condition(ctx, namespace, "tags")
		Eventually(isReady).WithContext(ctx).Should(HaveSuffix("; but the policy of Headscale does not know tag:web: add it to tagOwners"))
		_, err = s.Direct.SetPolicy(ctx, `{"tagOwners": {"tag:web": ["byid@"]}, "acls": []}`)
		Expect(err).NotTo(HaveOccurred())
		Eventually(isReady).WithContext(ctx).Should(And(HavePrefix("True Ready: "), Not(ContainSubstring("but"))))
		good(ctx, "tags", of(0))
	})

	It("keeps the state of a node in its Secret when another object takes the Secret over", func(ctx SpecContext) {
		user := s.newUser(ctx, namespace, "kept")
		apply(ctx, namespace, keyManifest("kept", "headscaleUserRef: kept, deletionPolicy: Retain"))
		key := good(ctx, "kept", of(user))
		secret := secretOf(ctx, namespace, "kept")
		changed := secret.DeepCopy()
		changed.Data["profile-1"] = []byte("state of a node")
		Expect(admin.Patch(ctx, changed, client.MergeFrom(secret))).To(Succeed())
		deleteKey(ctx, namespace, "kept")
		Eventually(get(ctx, namespace, "kept")).WithContext(ctx).Should(BeNil())
		apply(ctx, namespace, keyManifest("kept", "headscaleUserRef: kept"))
		Eventually(condition(ctx, namespace, "kept")).WithContext(ctx).Should(HavePrefix("True Ready: "))
		Expect(good(ctx, "kept", of(user)).ID).To(Equal(key.ID))
		Expect(secretOf(ctx, namespace, "kept").Data).To(HaveKeyWithValue("profile-1", []byte("state of a node")))
	})

	It("takes no entry of its Secret that somebody else has", func(ctx SpecContext) {
		user := s.newUser(ctx, namespace, "entry")
		apply(ctx, namespace, keyManifest("entry", "headscaleUserRef: entry"))
		key := good(ctx, "entry", of(user))
		secret := secretOf(ctx, namespace, "entry")
		changed := secret.DeepCopy()
		changed.Data["authkey"] = []byte("somebody else's")
		Expect(admin.Patch(ctx, changed, client.MergeFrom(secret))).To(Succeed())
		apply(ctx, namespace, keyManifest("entry", "headscaleUserRef: entry, secretKey: authkey"))
		Eventually(condition(ctx, namespace, "entry")).WithContext(ctx).Should(HavePrefix("False Conflict: "))
		Expect(secretOf(ctx, namespace, "entry").Data).To(HaveKeyWithValue("authkey", []byte("somebody else's")))
		apply(ctx, namespace, keyManifest("entry", "headscaleUserRef: entry"))
		Eventually(condition(ctx, namespace, "entry")).WithContext(ctx).Should(HavePrefix("True Ready: "))
		Expect(good(ctx, "entry", of(user)).ID).To(Equal(key.ID))
	})
})
