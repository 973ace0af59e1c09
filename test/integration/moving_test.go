package integration_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/pages"
)

// fromElsewhere are a user and a pre-auth key as people wrote them for another operator of this group.
const fromElsewhere = `
apiVersion: headscale.infrado.cloud/v1beta1
kind: HeadscaleUser
metadata: {name: user-a}
spec:
  headscaleRef: headscale
  username: user-a
  displayName: User A
  email: user-a@example.com
---
apiVersion: headscale.infrado.cloud/v1beta1
kind: HeadscalePreAuthKey
metadata: {name: key-by-reference}
spec: {headscaleRef: headscale, headscaleUserRef: user-a, expiration: 24h, reusable: false, ephemeral: false}
---
apiVersion: headscale.infrado.cloud/v1beta1
kind: HeadscalePreAuthKey
metadata: {name: key-by-id}
spec: {headscaleRef: headscale, userId: 1, expiration: 1h30m, secretName: my-key}
`

// Moving is copying the directory of Headscale into the volume, whatever ran Headscale before.
var _ = Describe("A Headscale that ran elsewhere", func() {
	for _, version := range []string{"v0.28.0", "v0.29.3"} {
		It("is moved here with its nodes: "+version, func(ctx SpecContext) {
			By("running it as a process of a host, with a node and a pre-auth key")
			host, err := env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: servers.Headscale[version], Guard: guard, Output: GinkgoWriter})
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(host.Kill)
			asks := headscale.NewClient(headscale.UnixSocket(host.SocketPath()))
			defer func() { _ = asks.Close() }()
			user, err := asks.CreateUser(ctx, headscale.NewUser{Name: "user-a"})
			Expect(err).NotTo(HaveOccurred())
			key, err := asks.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.ID, Reusable: true, Expiration: time.Now().Add(time.Hour)})
			Expect(err).NotTo(HaveOccurred())
			laptop, err := nodetest.New("laptop", "10.1.0.0/24")
			Expect(err).NotTo(HaveOccurred())
			Expect(laptop.Register(ctx, host.URL(), key.Key.Reveal())).To(BeTrue())
			before, err := asks.ListNodes(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(before).To(HaveLen(1))
			Expect(asks.SetApprovedRoutes(ctx, before[0].ID, []string{"10.1.0.0/24"})).To(Succeed())
			old, err := asks.CreateAPIKey(ctx, time.Now().Add(2160*time.Hour))
			Expect(err).NotTo(HaveOccurred())
			Expect(host.Stop()).To(Succeed())

			By("copying its directory into a claim of the right name, before the Headscale is applied")
			namespace := newNamespace(ctx)
			newClaim(ctx, namespace)
			newForeignSecret(ctx, namespace, old.Reveal())
			volume := filepath.Join(guard.Dir(), namespace+"-headscale", "claims", "data-headscale-0")
			Expect(os.MkdirAll(volume, 0o700)).To(Succeed())
			for _, name := range []string{"db.sqlite", "noise_private.key"} {
				content, err := os.ReadFile(filepath.Join(filepath.Dir(host.ConfigPath()), name))
				Expect(err).NotTo(HaveOccurred())
				Expect(os.WriteFile(filepath.Join(volume, name), content, 0o600)).To(Succeed())
			}
			hs := runPod(namespace, "headscale")
			apply(ctx, namespace, "apiVersion: headscale.infrado.cloud/v1beta1\nkind: Headscale\nmetadata: {name: headscale}\n"+
				"spec: {version: "+version+", config: {server_url: 'https://headscale.example.com'}}\n")
			hs.awaitReady(ctx)

			By("finding the node as it was: it comes back without a key")
			url := "http://" + hs.pod.Address(containerHeadscale, "http")
			Expect(laptop.Register(ctx, url, "")).To(BeTrue())
			stranger, err := nodetest.New("stranger")
			Expect(err).NotTo(HaveOccurred())
			Expect(stranger.Register(ctx, url, "")).To(BeFalse())
			Expect(hs.nodes(ctx)).To(ConsistOf(And(HaveField("ID", before[0].ID), HaveField("GivenName", "laptop"),
				HaveField("Addresses", before[0].Addresses), HaveField("ApprovedRoutes", ConsistOf("10.1.0.0/24")), HaveField("UserName", "user-a"))))

			By("having a key of its own in the Secret that another operator of this group left")
			stored := keyOf(hs.awaitKey(ctx, secretName, old.Reveal()))
			Expect(hs.keyStatus(ctx, stored)).To(Equal(http.StatusOK))
			Expect(hs.keyStatus(ctx, old.Reveal())).To(Equal(http.StatusOK), "the key of the other operator is somebody else's")

			By("applying users and pre-auth keys as another operator of this group had them")
			apply(ctx, namespace, fromElsewhere)
			adopted := readyUser(ctx, namespace, "user-a")
			Expect(adopted.Status).To(And(HaveField("UserID", user.ID), HaveField("Adopted", true)))
			for name, secret := range map[string]string{"key-by-reference": "key-by-reference", "key-by-id": "my-key"} {
				ours := readyPreAuthKey(ctx, namespace, name)
				Expect(ours.Status.KeyID).NotTo(Equal(key.ID))
				stored := &corev1.Secret{}
				Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: secret}, stored)).To(Succeed())
				Expect(nodetest.Register(ctx, url, string(stored.Data["key"]))).To(BeTrue(), name)
			}
			Expect(nodetest.Register(ctx, url, key.Key.Reveal())).To(BeTrue(), "a key that somebody else made is valid as before")
			Expect(laptop.Register(ctx, url, "")).To(BeTrue())

			By("deleting the HeadscaleUser: the user that was here before stays, and so does its node")
			Expect(admin.Delete(ctx, adopted)).To(Succeed())
			Eventually(func() error { return admin.Get(ctx, client.ObjectKeyFromObject(adopted), adopted) }).Should(MatchError(ContainSubstring("not found")))
			Expect(hs.userNames(ctx)).To(ContainElement("user-a"))
			Expect(laptop.Register(ctx, url, "")).To(BeTrue())
		})
	}

	It("keeps its claim, with the labels that somebody else gave it", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		newClaim(ctx, namespace)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
		claim := &corev1.PersistentVolumeClaim{}
		Eventually(func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "data-headscale-0"}, claim)).To(Succeed())
			g.Expect(claim.Labels).To(And(HaveKeyWithValue("app", "somebody-else"), HaveKeyWithValue(v1beta1.LabelManagedBy, v1beta1.ManagedBy)))
		}).Should(Succeed())
	})
})

var _ = Describe("What another operator of this group leaves", func() {
	It("is removed without touching Headscale", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		for kind, finalizer := range map[string]string{v1beta1.KindUser: "user-finalizer", v1beta1.KindPreAuthKey: "preauthkey-finalizer", v1beta1.Kind: "finalizer"} {
			spec := map[string]string{
				v1beta1.KindUser: "{headscaleRef: other, username: user-a}", v1beta1.KindPreAuthKey: "{headscaleRef: other, userId: 1}",
				v1beta1.Kind: "{version: v0.29.3, replicas: 0, config: {server_url: 'https://headscale.example.com'}}",
			}[kind]
			apply(ctx, namespace, "apiVersion: headscale.infrado.cloud/v1beta1\nkind: "+kind+"\nmetadata: {name: other, finalizers: [headscale.infrado.cloud/"+finalizer+"]}\nspec: "+spec+"\n")
		}
		page, err := pages.Read(root, "docs/migrate.md")
		Expect(err).NotTo(HaveOccurred())
		blocks, err := page.Below("From another operator of this API group", "sh")
		Expect(err).NotTo(HaveOccurred())
		dir := GinkgoT().TempDir()
		Expect(os.Symlink(servers.Kubectl(), filepath.Join(dir, "kubectl"))).To(Succeed())
		_, err = plane.Kubectl(ctx, "config", "set-context", "--current", "--namespace", namespace)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) {
			_, err := plane.Kubectl(ctx, "config", "set-context", "--current", "--namespace", "default")
			Expect(err).NotTo(HaveOccurred())
		})
		command := exec.CommandContext(ctx, "sh", "-ec", blocks[0])
		command.Env = append(os.Environ(), "KUBECONFIG="+plane.Kubeconfig(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
		output, err := command.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(output))
		for _, list := range []client.ObjectList{&v1beta1.HeadscaleUserList{}, &v1beta1.HeadscalePreAuthKeyList{}, &v1beta1.HeadscaleList{}} {
			Expect(admin.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
			Expect(meta.LenList(list)).To(BeZero())
		}
	})
})

// newClaim makes the claim of the data volume as another operator, or a person, did.
func newClaim(ctx context.Context, namespace string) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "data-headscale-0", Labels: map[string]string{"app": "somebody-else"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	})).To(Succeed())
}

// newForeignSecret makes the Secret of the API key as another operator of this group made it.
func newForeignSecret(ctx context.Context, namespace, key string) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: secretName, Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
			Annotations: map[string]string{
				v1beta1.AnnotationExpiration: time.Now().Add(2160 * time.Hour).UTC().Format(time.RFC3339), v1beta1.AnnotationCreatedAt: time.Now().UTC().Format(time.RFC3339),
			},
		},
		Data: map[string][]byte{v1beta1.SecretDataKey: []byte(key)},
	})).To(Succeed())
}

// nodes lists the nodes of a Headscale, on its socket.
func (s *server) nodes(ctx context.Context) ([]headscale.Node, error) {
	asks := headscale.NewClient(headscale.UnixSocket(s.pod.HostPath(containerManager, v1beta1.DefaultSocketPath)))
	defer func() { _ = asks.Close() }()
	return asks.ListNodes(ctx)
}

// readyPreAuthKey reads a HeadscalePreAuthKey that is ready.
func readyPreAuthKey(ctx context.Context, namespace, name string) *v1beta1.HeadscalePreAuthKey {
	GinkgoHelper()
	key := &v1beta1.HeadscalePreAuthKey{}
	Eventually(func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, key)).To(Succeed())
		ready := meta.FindStatusCondition(key.Status.Conditions, v1beta1.ConditionReady)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(ready.Status).To(Equal(metav1.ConditionTrue), ready.Message)
	}).WithContext(ctx).Should(Succeed())
	return key
}
