package integration_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// identityName is the name of the Secret with the private keys.
const identityName = "headscale-identity"

// awaitIdentity waits until the Secret has both keys, and returns them.
func (b *backedUp) awaitIdentity(ctx context.Context) map[string][]byte {
	GinkgoHelper()
	secret := &corev1.Secret{}
	Eventually(func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: b.key.Namespace, Name: identityName}, secret)).To(Succeed())
		g.Expect(secret.Data).To(And(HaveKey(v1beta1.EntryNoiseKey), HaveKey(v1beta1.EntryDERPKey)))
	}).Should(Succeed())
	return secret.Data
}

// file is a file on the data volume.
func (b *backedUp) file(name string) string {
	return filepath.Join(filepath.Dir(b.pod.HostPath(containerHeadscale, databasePath)), name)
}

// awaitWarning waits until Ready says something, and is true.
func (b *backedUp) awaitWarning(ctx context.Context, words string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		ready := meta.FindStatusCondition(b.get(ctx).Status.Conditions, v1beta1.ConditionReady)
		g.Expect(ready).To(HaveValue(And(HaveField("Status", metav1.ConditionTrue), HaveField("Message", ContainSubstring(words)))))
	}).Should(Succeed())
}

var _ = Describe("The private keys of a Headscale with a backup", func() {
	It("are those of before after pod and volume are lost, and no younger ones take their place", func(ctx SpecContext) {
		hs := newBackedUp(ctx, newStorage(ctx), "")
		hs.awaitReady(ctx)
		kept := hs.awaitIdentity(ctx)
		for entry, key := range kept {
			Expect(os.ReadFile(hs.file(entry))).To(Equal(key))
		}
		noise := hs.publicKey(ctx)
		Expect(noise).To(ContainSubstring("mkey:"))
		hs.addUser(ctx, "ada-lovelace")

		for range 2 {
			hs.awaitReplicated(ctx, "ada-lovelace")
			incarnation := hs.incarnation(ctx)
			hs.lose()
			hs.run()
			hs.awaitNext(ctx, incarnation)
			Expect(hs.publicKey(ctx)).To(Equal(noise))
			Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"))
			for entry, key := range kept {
				Expect(os.ReadFile(hs.file(entry))).To(Equal(key))
				info, err := os.Stat(hs.file(entry))
				Expect(err).NotTo(HaveOccurred())
				Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o600)))
			}
			Expect(hs.awaitIdentity(ctx)).To(Equal(kept))
		}

		By("a volume with another key")
		other := "privkey:" + fmt.Sprintf("%064x", 1<<40)
		file := hs.file(v1beta1.EntryNoiseKey)
		hs.stop()
		Expect(os.WriteFile(file, []byte(other), 0o600)).To(Succeed())
		hs.run()
		hs.awaitWarning(ctx, "the data volume has another noise_private.key than Secret headscale-identity, and neither is overwritten")
		hs.awaitReady(ctx)
		Expect(hs.publicKey(ctx)).NotTo(Equal(noise))
		Expect(hs.awaitIdentity(ctx)).To(Equal(kept))
		Expect(os.ReadFile(file)).To(BeEquivalentTo(other))

		By("going back to the key of the Secret")
		hs.stop()
		Expect(os.Remove(file)).To(Succeed())
		hs.run()
		Eventually(func(g Gomega) {
			ready := meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionReady)
			g.Expect(ready).To(HaveValue(And(HaveField("Status", metav1.ConditionTrue), HaveField("Message", Not(ContainSubstring("private"))))))
		}).Should(Succeed())
		Expect(hs.publicKey(ctx)).To(Equal(noise))
		for _, log := range []string{containerManager, "restore-identity"} {
			Expect(hs.pod.Log(log)).NotTo(Or(ContainSubstring(string(kept[v1beta1.EntryNoiseKey])), ContainSubstring(other),
				ContainSubstring(base64.StdEncoding.EncodeToString(kept[v1beta1.EntryNoiseKey]))))
		}
	})

	It("are taken from the volume of a Headscale that ran without a backup", func(ctx SpecContext) {
		hs := newBackedUp(ctx, newStorage(ctx), "")
		hs.awaitReady(ctx)
		backup := hs.get(ctx).Spec.Backup
		Expect(backup).NotTo(BeNil())
		hs.awaitIdentity(ctx) // or it is made after it was deleted
		hs.patch(ctx, `{"spec":{"backup":null}}`)
		hs.awaitReady(ctx)
		Expect(admin.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hs.key.Namespace, Name: identityName}})).To(Succeed())
		noise := hs.publicKey(ctx)
		hs.patch(ctx, fmt.Sprintf(`{"spec":{"backup":{"replica":{"type":"s3","bucket":%q,"path":"headscale","endpoint":"http://%s","region":"us-east-1"},"credentials":{"name":"backup-credentials"}}}}`, bucket, hs.storage.address))
		hs.awaitReady(ctx)
		kept := hs.awaitIdentity(ctx)
		Expect(os.ReadFile(hs.file(v1beta1.EntryNoiseKey))).To(Equal(kept[v1beta1.EntryNoiseKey]))
		Expect(hs.publicKey(ctx)).To(Equal(noise))
	})
})
