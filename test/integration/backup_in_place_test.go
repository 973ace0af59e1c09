package integration_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("The database of a Headscale with a backup", func() {
	var hs *backedUp
	BeforeEach(func(ctx SpecContext) {
		hs = newBackedUp(ctx, newStorage(ctx), "")
		hs.awaitReady(ctx)
	})

	It("goes back to a point in time in place, and a key that is younger is replaced", func(ctx SpecContext) {
		hs.addUser(ctx, "before-the-mistake")
		hs.awaitReplicated(ctx, "before-the-mistake")
		// The next whole second: Litestream compares with the time of its files.
		at := time.Now().UTC().Truncate(time.Second).Add(time.Second)
		Eventually(time.Now).Should(BeTemporally(">", at))
		old := keyOf(hs.awaitRest(ctx, secretName))
		hs.patch(ctx, `{"metadata":{"annotations":{"`+v1beta1.AnnotationRotateRequestedAt+`":"after"}}}`)
		younger := keyOf(hs.awaitKey(ctx, secretName, old))
		hs.addUser(ctx, "after-the-mistake")
		hs.awaitReplicated(ctx, "after-the-mistake")
		noise, incarnation := hs.publicKey(ctx), hs.incarnation(ctx)

		By("moving the database aside, and forgetting its log")
		hs.patch(ctx, `{"spec":{"backup":{"restore":"`+at.Format(time.RFC3339)+`"}}}`)
		database := hs.pod.HostPath(containerHeadscale, databasePath)
		hs.stop()
		aside := filepath.Join(filepath.Dir(database), "before-the-restore")
		Expect(os.Mkdir(aside, 0o700)).To(Succeed())
		Expect(os.Rename(database, filepath.Join(aside, "db.sqlite"))).To(Succeed())
		log := bytes.Repeat([]byte{1}, 4096)
		Expect(os.WriteFile(database+"-wal", log, 0o600)).To(Succeed())
		hs.run()
		Eventually(func() *metav1.Condition {
			return meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionReady)
		}).Should(HaveValue(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", v1beta1.ReasonRestoreFailed),
			HaveField("Message", ContainSubstring("db.sqlite-wal has 4096 bytes of a database that was")))))
		Expect(hs.pod.Process(containerHeadscale)).To(BeNil())
		Expect(os.ReadFile(database+"-wal")).To(Equal(log), "nothing is touched")

		By("moving the log aside, too")
		Expect(os.Rename(database+"-wal", filepath.Join(aside, "db.sqlite-wal"))).To(Succeed())
		hs.awaitNext(ctx, incarnation)
		Expect(hs.get(ctx).Status.Backup).To(HaveValue(And(HaveField("RestoredFrom", incarnation), HaveField("RestoredTo", at.Format(time.RFC3339)))))
		healed := keyOf(hs.awaitKey(ctx, secretName, younger))
		Expect(hs.keyStatus(ctx, healed)).To(Equal(http.StatusOK))
		Eventually(func() int { return hs.keyStatus(ctx, old) }).Should(Equal(http.StatusUnauthorized), "it was valid again in the restored database")
		Expect(hs.users(ctx)).To(ConsistOf("before-the-mistake"))
		Expect(hs.publicKey(ctx)).To(Equal(noise), "the private keys stayed on the volume")
		Expect(filepath.Join(aside, "db.sqlite")).To(BeAnExistingFile())
	})

	It("is restored where its file is empty", func(ctx SpecContext) {
		hs.addUser(ctx, "ada-lovelace")
		for range 2 {
			hs.awaitReplicated(ctx, "ada-lovelace")
			incarnation, database := hs.incarnation(ctx), hs.pod.HostPath(containerHeadscale, databasePath)
			hs.stop()
			Expect(os.Truncate(database, 0)).To(Succeed())
			Expect(os.RemoveAll(database + "-wal")).To(Succeed())
			hs.run()
			hs.awaitNext(ctx, incarnation)
			Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"))
			Expect(hs.get(ctx).Status.Backup.RestoredFrom).To(Equal(incarnation))
		}
	})
})
