package preauthkey

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// releases are those of which specs run with each. That of 0.30 is the contract server.
var releases = []string{"v0.26.1", "v0.27.1", "v0.28.0", "v0.29.3", "v0.30.0"}

// startServer starts a Headscale for one container of specs, and returns the path of its socket.
func startServer(ctx context.Context, version string) string {
	GinkgoHelper()
	if version != "v0.30.0" {
		return startHeadscale(ctx, version).SocketPath()
	}
	fake := headscaletest.New(filepath.Join(GinkgoT().TempDir(), "hs.sock"), headscaletest.V030)
	Expect(fake.Start()).To(Succeed())
	DeferCleanup(fake.Stop)
	return fake.SocketPath()
}

// secretOf reads a Secret; nil: there is none.
func secretOf(ctx context.Context, namespace, name string) *corev1.Secret {
	GinkgoHelper()
	secret := &corev1.Secret{}
	err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, secret)
	if client.IgnoreNotFound(err) == nil && err != nil {
		return nil
	}
	Expect(err).NotTo(HaveOccurred())
	return secret
}

// good checks the promise: exactly one unexpired, unused key of a user or with tags is there, and it
// is the one in the Secret. It returns the key.
func (s *server) good(ctx context.Context, namespace, name, entry string, matches func(*headscale.PreAuthKey) bool) func(g Gomega) headscale.PreAuthKey {
	return func(g Gomega) headscale.PreAuthKey {
		secret := &corev1.Secret{}
		g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, secret)).To(Succeed())
		valid := s.valid(ctx, g, matches)
		g.Expect(valid).To(HaveLen(1), "valid keys")
		g.Expect(secret.Data).To(HaveKey(entry))
		g.Expect(idOf(headscale.NewKey(string(secret.Data[entry])))).To(Equal(idOf(valid[0].Key)))
		g.Expect(secret.Annotations).NotTo(HaveKey(v1beta1.AnnotationPreAuthKeyRetiring))
		return valid[0]
	}
}

// valid are the unexpired and unused keys.
func (s *server) valid(ctx context.Context, g Gomega, matches func(*headscale.PreAuthKey) bool) []headscale.PreAuthKey {
	users, err := s.Direct.ListUsers(ctx)
	g.Expect(err).NotTo(HaveOccurred())
	var ids []uint64
	for i := range users {
		ids = append(ids, users[i].ID)
	}
	keys, err := s.Direct.ListPreAuthKeys(ctx, ids)
	g.Expect(err).NotTo(HaveOccurred())
	return slices.DeleteFunc(keys, func(key headscale.PreAuthKey) bool {
		_, used := s.used.Load(key.ID)
		return used || key.Expiration == nil || !key.Expiration.After(time.Now()) || !matches(&key)
	})
}

// of matches the keys of a user.
func of(user uint64) func(*headscale.PreAuthKey) bool {
	return func(key *headscale.PreAuthKey) bool { return key.UserID == user }
}

// newUser makes a user and its HeadscaleUser, as the controller of that would.
func (s *server) newUser(ctx context.Context, namespace, name string) uint64 {
	GinkgoHelper()
	made, err := s.Direct.CreateUser(ctx, headscale.NewUser{Name: name})
	Expect(err).NotTo(HaveOccurred())
	reference := "headscaleRef: headscale"
	if s.Namespace != namespace {
		reference += ", headscaleNamespace: " + s.Namespace
	}
	apply(ctx, namespace, "{apiVersion: headscale.infrado.cloud/v1beta1, kind: HeadscaleUser, metadata: {name: "+name+"}, spec: {"+reference+", username: "+name+"}}")
	setUser(ctx, namespace, name, made)
	return made.ID
}

// setUser notes a user at its HeadscaleUser.
func setUser(ctx context.Context, namespace, name string, made headscale.User) {
	GinkgoHelper()
	user := &v1beta1.HeadscaleUser{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, user)).To(Succeed())
	before := user.DeepCopy()
	created := metav1.NewTime(made.CreatedAt.Truncate(time.Second))
	user.Status.UserID, user.Status.CreatedAt = made.ID, &created
	Expect(admin.Status().Patch(ctx, user, client.MergeFrom(before))).To(Succeed())
}

var _ = Describe("A HeadscalePreAuthKey", func() {
	for _, version := range releases {
		Context("of Headscale "+version, Ordered, func() {
			var s *server
			var namespace string
			var alice uint64

			BeforeAll(func(ctx SpecContext) {
				socket := startServer(ctx, version)
				namespace = newNamespace(ctx)
				startOperator(namespace)
				s = newServer(ctx, namespace, version, headscale.UnixSocket(socket))
				alice = s.newUser(ctx, namespace, "alice")
			})

			isReady := func(name string) func(g Gomega) string { return condition(context.Background(), namespace, name) }
			good := func(ctx context.Context, name, entry string, user uint64) headscale.PreAuthKey {
				GinkgoHelper()
				var key headscale.PreAuthKey
				Eventually(func(g Gomega) { key = s.good(ctx, namespace, name, entry, of(user))(g) }).WithContext(ctx).Should(Succeed())
				return key
			}

			It("is made, and stored in its Secret", func(ctx SpecContext) {
				apply(ctx, namespace, keyManifest("web", "headscaleUserRef: alice, tags: ['tag:web'], ephemeral: true, expiration: 2h, secretTemplate: {labels: {app: web}, annotations: {note: x}}"))
				key := good(ctx, "web", "key", alice)
				Expect(key).To(And(HaveField("Reusable", false), HaveField("Ephemeral", true), HaveField("Tags", ConsistOf("tag:web")), HaveField("UserID", alice)))
				Eventually(isReady("web")).Should(HavePrefix(fmt.Sprintf("True Ready: Pre-auth key %d is in Secret web, valid until ", key.ID)))
				object := get(ctx, namespace, "web")(NewWithT(GinkgoT()))
				Expect(object.Status.KeyID).To(Equal(key.ID))
				Expect(object.Finalizers).To(ConsistOf(v1beta1.FinalizerPreAuthKey))
				Expect(object.Status.NextRotation.Sub(object.Status.Expiration.Time)).To(BeNumerically("~", -40*time.Minute, 2*time.Second))
				secret := secretOf(ctx, namespace, "web")
				Expect(secret.Labels).To(HaveKeyWithValue("app", "web"))
				Expect(secret.Annotations).To(HaveKeyWithValue("note", "x"))
				Expect(metav1.IsControlledBy(secret, object)).To(BeTrue())
				Eventually(events(ctx, namespace, "web")).WithContext(ctx).Should(ContainElement(HavePrefix("KeyStored: ")))
				Expect(fmt.Sprint(events(ctx, namespace, "web")(NewWithT(GinkgoT())))).NotTo(ContainSubstring(string(secret.Data["key"])))
			})

			It("is replaced when it was used, expired by hand, or its spec changes", func(ctx SpecContext) {
				first := good(ctx, "web", "key", alice)
				s.used.Store(first.ID, true)
				var second headscale.PreAuthKey
				Eventually(func(g Gomega) {
					second = s.good(ctx, namespace, "web", "key", of(alice))(g)
					g.Expect(second.ID).NotTo(Equal(first.ID))
					g.Expect(get(ctx, namespace, "web")(g).Status.Used).To(BeEquivalentTo(1))
				}).WithContext(ctx).Should(Succeed())
				Expect(s.Direct.ExpirePreAuthKey(ctx, second)).To(Succeed())
				third := good(ctx, "web", "key", alice)
				Expect(third.ID).NotTo(Equal(second.ID))
				apply(ctx, namespace, keyManifest("web", "headscaleUserRef: alice, reusable: true"))
				var fourth headscale.PreAuthKey
				Eventually(func(g Gomega) {
					fourth = s.good(ctx, namespace, "web", "key", of(alice))(g)
					g.Expect(fourth.Reusable).To(BeTrue())
				}).WithContext(ctx).Should(Succeed())
				Expect(secretOf(ctx, namespace, "web").Labels).NotTo(HaveKey("app"))
				if version == "v0.28.0" || version == "v0.29.3" || version == "v0.30.0" {
					Expect(s.Direct.DeletePreAuthKey(ctx, fourth.ID)).To(Succeed())
					fifth := good(ctx, "web", "key", alice)
					Expect(fifth.ID).NotTo(Equal(fourth.ID))
				}
			})

			It("leaves what else is in its Secret alone, when the key and its entry change and when it is deleted", func(ctx SpecContext) {
				bob := s.newUser(ctx, namespace, "bob")
				apply(ctx, namespace, keyManifest("state", "headscaleUserRef: bob"))
				first := good(ctx, "state", "key", bob)
				secret := secretOf(ctx, namespace, "state")
				patched := secret.DeepCopy()
				patched.Data["profile-1"], patched.Annotations["theirs"] = []byte("state of a node"), "yes"
				Expect(admin.Patch(ctx, patched, client.MergeFrom(secret))).To(Succeed())
				Expect(s.Direct.ExpirePreAuthKey(ctx, first)).To(Succeed())
				Eventually(func(g Gomega) {
					g.Expect(s.good(ctx, namespace, "state", "key", of(bob))(g).ID).NotTo(Equal(first.ID))
				}).WithContext(ctx).Should(Succeed())
				apply(ctx, namespace, keyManifest("state", "headscaleUserRef: bob, secretKey: authkey"))
				moved := good(ctx, "state", "authkey", bob)
				secret = secretOf(ctx, namespace, "state")
				Expect(secret.Data).To(And(HaveLen(2), HaveKeyWithValue("profile-1", []byte("state of a node"))))
				Expect(secret.OwnerReferences).To(BeEmpty())
				Expect(moved.ID).NotTo(Equal(first.ID))

				deleteKey(ctx, namespace, "state")
				Eventually(get(ctx, namespace, "state")).WithContext(ctx).Should(BeNil())
				left := secretOf(ctx, namespace, "state")
				Expect(left.Data).To(Equal(map[string][]byte{"profile-1": []byte("state of a node")}))
				Expect(left.Annotations).To(Equal(map[string]string{"theirs": "yes"}))
				Expect(s.valid(ctx, NewWithT(GinkgoT()), of(bob))).To(BeEmpty())
				Eventually(events(ctx, namespace, "state")).WithContext(ctx).Should(ContainElement(HavePrefix("SecretLeft: ")))
			})

			It("replaces what somebody wrote over the key, or deleted, with its ledger or without", func(ctx SpecContext) {
				carol := s.newUser(ctx, namespace, "carol")
				apply(ctx, namespace, keyManifest("edited", "headscaleUserRef: carol"))
				good(ctx, "edited", "key", carol)
				for _, change := range []func(*corev1.Secret){
					func(secret *corev1.Secret) { secret.Data["key"] = []byte("nonsense") },
					func(secret *corev1.Secret) { delete(secret.Data, "key") },
					func(secret *corev1.Secret) { secret.Annotations = nil },
				} {
					secret := secretOf(ctx, namespace, "edited")
					patched := secret.DeepCopy()
					change(patched)
					Expect(admin.Patch(ctx, patched, client.MergeFrom(secret))).To(Succeed())
					good(ctx, "edited", "key", carol)
					Eventually(func(g Gomega) {
						s.good(ctx, namespace, "edited", "key", of(carol))(g)
						g.Expect(secretOf(ctx, namespace, "edited").Annotations).To(HaveKey(v1beta1.AnnotationPreAuthKeyDigest))
					}).WithContext(ctx).Should(Succeed())
				}
				Expect(admin.Delete(ctx, secretOf(ctx, namespace, "edited"))).To(Succeed())
				good(ctx, "edited", "key", carol)
			})

			It("never writes to a Secret of somebody else", func(ctx SpecContext) {
				dave := s.newUser(ctx, namespace, "dave")
				foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "foreign"}, StringData: map[string]string{"a": "b"}}
				Expect(admin.Create(ctx, foreign)).To(Succeed())
				apply(ctx, namespace, keyManifest("foreign", "headscaleUserRef: dave"))
				Eventually(isReady("foreign")).Should(HavePrefix("False Conflict: Secret foreign exists already and does not belong to this HeadscalePreAuthKey"))
				Expect(secretOf(ctx, namespace, "foreign").ResourceVersion).To(Equal(foreign.ResourceVersion))
				Expect(s.valid(ctx, NewWithT(GinkgoT()), of(dave))).To(BeEmpty())
				Expect(get(ctx, namespace, "foreign")(NewWithT(GinkgoT())).Finalizers).To(BeEmpty())

				apply(ctx, namespace, keyManifest("second", "headscaleUserRef: dave, secretName: web"))
				Eventually(isReady("second")).Should(HavePrefix("False Conflict: Secret web belongs to HeadscalePreAuthKey web"))
			})

			It("is not replaced with reissue: Never", func(ctx SpecContext) {
				erin := s.newUser(ctx, namespace, "erin")
				apply(ctx, namespace, keyManifest("once", "headscaleUserRef: erin, reissue: Never"))
				key := good(ctx, "once", "key", erin)
				s.used.Store(key.ID, true)
				Eventually(isReady("once")).Should(HavePrefix("True Used: "))
				Expect(get(ctx, namespace, "once")(NewWithT(GinkgoT())).Status.Used).To(BeEquivalentTo(1))
				Expect(admin.Delete(ctx, secretOf(ctx, namespace, "once"))).To(Succeed())
				Consistently(func(g Gomega) {
					g.Expect(s.valid(ctx, g, of(erin))).To(BeEmpty())
					g.Expect(isReady("once")(g)).To(HavePrefix("True Used: "))
				}).WithContext(ctx).Should(Succeed())
			})

			It("takes tags without a user where the release does", func(ctx SpecContext) {
				apply(ctx, namespace, keyManifest("tags", "tags: ['tag:web']"))
				if version == "v0.26.1" || version == "v0.27.1" {
					Eventually(isReady("tags")).Should(HavePrefix("False Unsupported: Headscale " + version + " cannot create pre-auth keys without a user"))
					return
				}
				Eventually(func(g Gomega) { s.good(ctx, namespace, "tags", "key", of(0))(g) }).WithContext(ctx).Should(Succeed())
				_, err := s.Direct.SetPolicy(ctx, "{ // a comment\n\"tagOwners\": {\"tag:other\": [\"alice@\"],}, \"acls\": [],}")
				Expect(err).NotTo(HaveOccurred())
				Eventually(isReady("tags")).Should(HaveSuffix("; but the policy of Headscale does not know tag:web: add it to tagOwners"))
			})

			It("waits for its user, and follows it when that is made again", func(ctx SpecContext) {
				apply(ctx, namespace, keyManifest("late", "headscaleUserRef: frank"))
				Eventually(isReady("late")).Should(HavePrefix("False UserMissing: There is no HeadscaleUser " + namespace + "/frank"))
				frank := s.newUser(ctx, namespace, "frank")
				good(ctx, "late", "key", frank)
				if version == "v0.28.0" {
					return // where the keys of all others would go, too: see below
				}
				Expect(s.Direct.DeleteUser(ctx, frank)).To(Succeed())
				Eventually(isReady("late")).Should(HavePrefix("False UserMissing: HeadscaleUser " + namespace + "/frank has no user in Headscale yet"))
				made, err := s.Direct.CreateUser(ctx, headscale.NewUser{Name: "frank"})
				Expect(err).NotTo(HaveOccurred())
				setUser(ctx, namespace, "frank", made)
				good(ctx, "late", "key", made.ID)
			})

			It("replaces all keys that v0.28.0 loses with any user", func(ctx SpecContext) {
				if version != "v0.28.0" {
					Skip("not with this release")
				}
				before := good(ctx, "web", "key", alice)
				Expect(s.Direct.DeleteUser(ctx, s.newUser(ctx, namespace, "grace"))).To(Succeed())
				Eventually(func(g Gomega) {
					g.Expect(s.good(ctx, namespace, "web", "key", of(alice))(g).ID).NotTo(Equal(before.ID))
				}).WithContext(ctx).Should(Succeed())
			})

			It("is rotated before it expires, with a time in which the old one stays valid", func(ctx SpecContext) {
				heidi := s.newUser(ctx, namespace, "heidi")
				apply(ctx, namespace, keyManifest("short", "headscaleUserRef: heidi, expiration: 12s, rotationBuffer: 10s, revocationDelay: 2s"))
				first := good(ctx, "short", "key", heidi)
				Eventually(func(g Gomega) {
					secret := secretOf(ctx, namespace, "short")
					g.Expect(idOf(headscale.NewKey(string(secret.Data["key"])))).NotTo(Equal(idOf(first.Key)))
					g.Expect(s.valid(ctx, g, of(heidi))).To(HaveLen(2))
				}).WithContext(ctx).Should(Succeed())
				deleteKey(ctx, namespace, "short")
				Eventually(get(ctx, namespace, "short")).WithContext(ctx).Should(BeNil())
				Expect(s.valid(ctx, NewWithT(GinkgoT()), of(heidi))).To(BeEmpty())
			})

			It("survives a lost answer with one key", func(ctx SpecContext) {
				ivan := s.newUser(ctx, namespace, "ivan")
				s.LoseAnswer()
				apply(ctx, namespace, keyManifest("lost", "headscaleUserRef: ivan"))
				good(ctx, "lost", "key", ivan)
			})

			It("stays with deletionPolicy: Retain, and is taken over by the next of its name", func(ctx SpecContext) {
				judy := s.newUser(ctx, namespace, "judy")
				apply(ctx, namespace, keyManifest("kept", "headscaleUserRef: judy, deletionPolicy: Retain"))
				key := good(ctx, "kept", "key", judy)
				Expect(get(ctx, namespace, "kept")(NewWithT(GinkgoT())).Finalizers).To(BeEmpty())
				deleteKey(ctx, namespace, "kept")
				Eventually(get(ctx, namespace, "kept")).WithContext(ctx).Should(BeNil())
				Expect(good(ctx, "kept", "key", judy).ID).To(Equal(key.ID))
				apply(ctx, namespace, keyManifest("kept", "headscaleUserRef: judy"))
				Eventually(isReady("kept")).Should(HavePrefix("True Ready: "))
				Expect(good(ctx, "kept", "key", judy).ID).To(Equal(key.ID))
				Eventually(func(g Gomega) {
					g.Expect(get(ctx, namespace, "kept")(g).Finalizers).NotTo(BeEmpty())
					g.Expect(secretOf(ctx, namespace, "kept").OwnerReferences).To(HaveLen(1))
				}).WithContext(ctx).Should(Succeed())
			})

			It("lets go at once when Headscale is gone", func(ctx SpecContext) {
				Expect(admin.Delete(ctx, &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "headscale"}})).To(Succeed())
				Eventually(isReady("web")).Should(HavePrefix("False NoHeadscale: "))
				deleteKey(ctx, namespace, "web")
				Eventually(get(ctx, namespace, "web")).WithContext(ctx).Should(BeNil())
				Eventually(events(ctx, namespace, "web")).WithContext(ctx).Should(ContainElement(HavePrefix("KeyLeft: ")))
			})
		})
	}
})

var _ = Describe("An operator that is killed", func() {
	for _, version := range releases {
		for _, step := range []rotation.Step{rotation.StepIntend, rotation.StepCreate, rotation.StepStore, rotation.StepExpire, rotation.StepForget} {
			It(fmt.Sprintf("after the step %s leaves what the next one puts right, with Headscale %s", step, version), func(ctx SpecContext) {
				namespace := newNamespace(ctx)
				s := newServer(ctx, namespace, version, headscale.UnixSocket(startServer(ctx, version)))
				user := s.newUser(ctx, namespace, "alice")
				var killed atomic.Bool
				reached = func(_ client.ObjectKey, at rotation.Step) {
					if at == step && killed.CompareAndSwap(false, true) {
						s.SetRefused(fmt.Errorf("%w: the operator is dead", headscale.ErrUnavailable))
						panic("killed") // after which nothing else is done
					}
				}
				DeferCleanup(func() { reached = nil })
				stop := startOperator(namespace)
				apply(ctx, namespace, keyManifest("web", "headscaleUserRef: alice"))
				if step == rotation.StepExpire || step == rotation.StepForget {
					Eventually(func(g Gomega) { s.good(ctx, namespace, "web", "key", of(user))(g) }).WithContext(ctx).Should(Succeed())
					apply(ctx, namespace, keyManifest("web", "headscaleUserRef: alice, ephemeral: true"))
				}
				Eventually(killed.Load).WithContext(ctx).Should(BeTrue())
				stop()
				reached = nil
				s.SetRefused(nil)
				startOperator(namespace)
				Eventually(func(g Gomega) { s.good(ctx, namespace, "web", "key", of(user))(g) }).WithContext(ctx).Should(Succeed())
			})
		}
	}
})

var _ = Describe("Other namespaces", func() {
	It("have keys as far as the Headscale gives them access", func(ctx SpecContext) {
		own, other := newNamespace(ctx), newNamespace(ctx)
		s := newServer(ctx, own, "v0.29.3", headscale.UnixSocket(startServer(ctx, "v0.29.3")))
		startOperator()
		reference := "headscaleNamespace: " + own + ", "
		apply(ctx, other, keyManifest("tags", reference+"tags: ['tag:team-web']"))
		isReady := condition(ctx, other, "tags")
		Eventually(isReady).WithContext(ctx).Should(And(HavePrefix("False NotAllowed: "), ContainSubstring(`tags: ["tag:team-web"]`)))
		access := func(text string) {
			apply(ctx, own, "{apiVersion: headscale.infrado.cloud/v1beta1, kind: Headscale, metadata: {name: headscale}, spec: {version: v0.29.3, config: {server_url: http://headscale.example}, access: ["+text+"]}}")
		}
		access("{namespaces: {names: [" + other + "]}, tags: ['tag:team-*']}")
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
		apply(ctx, other, keyManifest("id", reference+"userId: 1"))
		Eventually(condition(ctx, other, "id")).WithContext(ctx).Should(HavePrefix("False NotAllowed: userId may be set only in the namespace of the Headscale"))
		user := s.newUser(ctx, other, "alice")
		apply(ctx, other, keyManifest("user", reference+"headscaleUserRef: alice"))
		Eventually(condition(ctx, other, "user")).WithContext(ctx).Should(And(HavePrefix("False NotAllowed: "), ContainSubstring("users: true")))
		access("{namespaces: {names: [" + other + "]}, users: true}")
		Eventually(func(g Gomega) { s.good(ctx, other, "user", "key", of(user))(g) }).WithContext(ctx).Should(Succeed())
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("False NotAllowed: "))
		Expect(s.valid(ctx, NewWithT(GinkgoT()), of(0))).To(HaveLen(1), "nothing is deleted by it")
	})
})
