package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// Names and credentials of the storage.
const (
	bucket           = "backups"
	accessKey        = "backup-access"
	secretKey        = "backup-secret-of-the-tests"
	containerRestore = "restore"
	containerBackup  = "litestream"
	databasePath     = "/var/lib/headscale/db.sqlite"
)

// storage is an S3 server whose buckets are directories.
type storage struct {
	program, dir, address string
	server                *process.Process
}

// backupProgram is the path of Litestream or of the S3 server.
func backupProgram(name string) string {
	GinkgoHelper()
	found, err := serverbuild.Find(serverbuild.Options{Root: root, Backup: true})
	Expect(err).NotTo(HaveOccurred())
	return filepath.Join(found.Backup[name], name)
}

// newStorage starts an S3 server with one bucket.
func newStorage(ctx context.Context) *storage {
	GinkgoHelper()
	dir, err := os.MkdirTemp(guard.Dir(), "s3-")
	Expect(err).NotTo(HaveOccurred())
	s := &storage{program: backupProgram("versitygw"), dir: dir}
	s.address, err = env.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	for _, part := range []string{"objects/" + bucket, "metadata"} {
		Expect(os.MkdirAll(filepath.Join(dir, part), 0o700)).To(Succeed())
	}
	s.start(ctx)
	DeferCleanup(func() { s.server.Kill() })
	return s
}

// start starts the server, with some more flags, and waits until it answers.
func (s *storage) start(ctx context.Context, flags ...string) {
	GinkgoHelper()
	var err error
	s.server, err = process.Start(process.Command{
		Name: "versitygw", Path: s.program, Dir: s.dir, Output: GinkgoWriter, Guard: guard,
		Args: append(flags,
			"--quiet", "--port", s.address, "--access", accessKey, "--secret", secretKey, "--region", "us-east-1",
			"posix", "--sidecar", filepath.Join(s.dir, "metadata"), filepath.Join(s.dir, "objects"),
		),
	})
	Expect(err).NotTo(HaveOccurred())
	Eventually(func() error {
		_, _, err := env.Get(ctx, "http://"+s.address, "")
		return err
	}).Should(Succeed())
}

// incarnations lists those that have a path in the replica.
func (s *storage) incarnations() []string {
	GinkgoHelper()
	entries, err := os.ReadDir(filepath.Join(s.dir, "objects", bucket, "headscale"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	Expect(err).NotTo(HaveOccurred())
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// objects are the files of an incarnation in the storage, in the order of their names.
func (s *storage) objects(incarnation string) (paths []string) {
	// Objects come and go while it looks.
	_ = filepath.WalkDir(filepath.Join(s.dir, "objects", bucket, "headscale", incarnation), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.HasSuffix(path, ".ltx") {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}

// manifest is a Headscale whose database is backed up to the storage, with more of its backup.
func (s *storage) manifest(more string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: backup-credentials}
stringData: {AWS_ACCESS_KEY_ID: %s, AWS_SECRET_ACCESS_KEY: %s}
---
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: headscale}
spec:
  version: %s
  config: {server_url: "http://headscale.example.com"}
  backup:
    replica: {type: s3, bucket: %s, path: headscale, endpoint: "http://%s", region: us-east-1}
    credentials: {name: backup-credentials}
    %s
`, accessKey, secretKey, serverbuild.DefaultHeadscale, bucket, s.address, more)
}

// backedUp is a Headscale with a backup, whose pod can be lost with its volume.
type backedUp struct {
	*server
	storage *storage
	stop    func()
}

// newBackedUp applies a Headscale with a backup and runs its pod.
func newBackedUp(ctx context.Context, s *storage, more string) *backedUp {
	GinkgoHelper()
	b := &backedUp{server: &server{key: client.ObjectKey{Namespace: newNamespace(ctx), Name: "headscale"}}, storage: s}
	b.run()
	DeferCleanup(func() { b.stop() })
	apply(ctx, b.key.Namespace, s.manifest(more))
	return b
}

// run runs the pod, on the volume that there is or on an empty one.
func (b *backedUp) run() {
	b.pod, b.stop = podrunner.StartInWorld(world, b.key, GinkgoWriter)
}

// lose kills all containers at once, and deletes the volume.
func (b *backedUp) lose() {
	GinkgoHelper()
	volume := filepath.Dir(b.pod.HostPath(containerHeadscale, databasePath))
	Expect(volume).To(BeADirectory())
	b.killAll()
	b.stop()
	Expect(os.RemoveAll(volume)).To(Succeed())
}

// addUser adds a user to Headscale.
func (b *backedUp) addUser(ctx context.Context, name string) {
	GinkgoHelper()
	b.call(ctx, keyOf(b.awaitRest(ctx, secretName)), http.MethodPost, "/api/v1/user", map[string]any{"name": name})
}

// users are the names of Headscale's users.
func (b *backedUp) users(ctx context.Context) []string {
	GinkgoHelper()
	raw, err := json.Marshal(b.call(ctx, keyOf(b.awaitRest(ctx, secretName)), http.MethodGet, "/api/v1/user", nil))
	Expect(err).NotTo(HaveOccurred())
	var answer struct{ Users []struct{ Name string } }
	Expect(json.Unmarshal(raw, &answer)).To(Succeed())
	var names []string
	for _, user := range answer.Users {
		names = append(names, user.Name)
	}
	return names
}

// awaitReplicated waits until a restore of the replica has a user. A restore is a process of some
// hundred milliseconds, so it asks for one every second.
func (b *backedUp) awaitReplicated(ctx context.Context, name string) {
	GinkgoHelper()
	Eventually(func() (string, error) {
		restored := filepath.Join(GinkgoT().TempDir(), "db.sqlite")
		p, err := process.Start(process.Command{
			Name: "litestream", Path: backupProgram("litestream"), Guard: guard,
			Args: []string{"restore", "-o", restored, fmt.Sprintf("s3://%s/headscale/%s?endpoint=http://%s&region=us-east-1&forcePathStyle=true", bucket, b.incarnation(ctx), b.storage.address)},
			Env:  []string{"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey},
		})
		if err != nil {
			return "", err
		}
		if err := p.Wait(ctx); err != nil {
			return "", fmt.Errorf("%w: %s", err, p.Log())
		}
		content, err := os.ReadFile(restored)
		return string(content), err
	}).WithPolling(time.Second).Should(ContainSubstring(name))
}

// incarnation is the one that the status names.
func (b *backedUp) incarnation(ctx context.Context) string {
	GinkgoHelper()
	status := b.get(ctx).Status.Backup
	Expect(status).NotTo(BeNil())
	return status.Incarnation
}

// awaitNext waits until Headscale is ready with another incarnation than the one before. Ready alone may
// still be what it was of the pod before.
func (b *backedUp) awaitNext(ctx context.Context, before string) {
	GinkgoHelper()
	Eventually(func() *v1beta1.BackupStatus { return b.get(ctx).Status.Backup }).Should(
		HaveValue(And(HaveField("Incarnation", Not(Equal(before))), HaveField("StartedAt", Not(BeNil())))))
	b.awaitReady(ctx)
}

// awaitLooking waits until Litestream asks a storage that does not answer, which it does for
// minutes.
func (b *backedUp) awaitLooking(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		ready := meta.FindStatusCondition(b.get(ctx).Status.Conditions, v1beta1.ConditionReady)
		g.Expect(ready).To(HaveValue(And(HaveField("Reason", v1beta1.ReasonProgressing), HaveField("Message", ContainSubstring("is looking for a database to restore")))))
	}).Should(Succeed())
	Expect(b.pod.Process(containerHeadscale)).To(BeNil(), "Headscale must not start with an empty database")
}

// backupPatience is longer than Litestream's longest pause before it tries again, which is five minutes.
const backupPatience = 6 * time.Minute

// awaitBackedUp waits until the condition BackedUp is so.
func (b *backedUp) awaitBackedUp(ctx context.Context, status metav1.ConditionStatus, reason string) {
	GinkgoHelper()
	Eventually(func() *metav1.Condition {
		return meta.FindStatusCondition(b.get(ctx).Status.Conditions, v1beta1.ConditionBackedUp)
	}).WithTimeout(backupPatience).Should(HaveValue(And(HaveField("Status", status), HaveField("Reason", reason))))
}

// awaitVerified waits until a verification of the backup has ended so.
func (b *backedUp) awaitVerified(ctx context.Context, outcome v1beta1.VerificationOutcome, words string) {
	GinkgoHelper()
	Eventually(func() *v1beta1.BackupVerification { return b.get(ctx).Status.BackupVerification }).WithTimeout(backupPatience).Should(
		HaveValue(And(HaveField("Outcome", outcome), HaveField("Message", ContainSubstring(words)))))
}

// awaitRestoreFailed waits until the resource says that there is no database and none is restored.
func (b *backedUp) awaitRestoreFailed(ctx context.Context, words string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		ready := meta.FindStatusCondition(b.get(ctx).Status.Conditions, v1beta1.ConditionReady)
		g.Expect(ready).To(HaveValue(And(
			HaveField("Status", metav1.ConditionFalse), HaveField("Reason", v1beta1.ReasonRestoreFailed), HaveField("Message", ContainSubstring(words)))))
	}).Should(Succeed())
	Expect(b.pod.Process(containerHeadscale)).To(BeNil(), "Headscale must not start with an empty database")
	Expect(b.pod.HostPath(containerRestore, databasePath)).NotTo(BeAnExistingFile())
}

var _ = Describe("A Headscale with a backup", func() {
	var s3 *storage
	BeforeEach(func(ctx SpecContext) { s3 = newStorage(ctx) })

	It("has everything back after its pod and its volume are lost at once, again and again", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		var incarnations []string
		for round := range 3 {
			incarnation := hs.incarnation(ctx)
			Expect(incarnations).NotTo(ContainElement(incarnation), "each database has a path of its own")
			incarnations = append(incarnations, incarnation)
			name := fmt.Sprintf("user-number-%d", round)
			hs.addUser(ctx, name)
			hs.awaitReplicated(ctx, name)
			key := keyOf(hs.awaitRest(ctx, secretName))

			hs.lose()
			hs.run()
			hs.awaitNext(ctx, incarnation)
			Expect(hs.get(ctx).Status.Backup).To(HaveValue(And(HaveField("Previous", incarnation), HaveField("RestoredFrom", incarnation))))
			Expect(hs.users(ctx)).To(HaveLen(round + 1))
			Expect(hs.users(ctx)).To(ContainElement(name))
			Expect(hs.keyStatus(ctx, keyOf(hs.awaitRest(ctx, secretName)))).To(Equal(http.StatusOK))
			Expect(keyOf(hs.awaitRest(ctx, secretName))).To(Equal(key), "a good key is not replaced")
		}
		Eventually(s3.incarnations).Should(ContainElements(incarnations))
	})

	It("replicates what was written just before it is stopped", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		// Litestream finds a new database within a second.
		hs.addUser(ctx, "the-first-one")
		hs.awaitReplicated(ctx, "the-first-one")
		hs.addUser(ctx, "the-last-one")
		incarnation := hs.incarnation(ctx)
		hs.delete()
		hs.run()
		hs.awaitNext(ctx, incarnation)
		Expect(hs.users(ctx)).To(ConsistOf("the-first-one", "the-last-one"))
	})

	It("never starts with an empty database where the backup could not be looked for", func(ctx SpecContext) {
		s3.server.Kill()
		// A preflight would hold the change of a replica up until the pod has restored from the one before.
		hs := newBackedUp(ctx, s3, "restore: WhenEmpty\n  preflight: Never")
		hs.awaitLooking(ctx)
		s3.start(ctx)
		hs.awaitReady(ctx)
		hs.addUser(ctx, "ada-lovelace")
		hs.awaitReplicated(ctx, "ada-lovelace")

		By("a storage that cannot be reached")
		s3.server.Kill()
		hs.lose()
		hs.run()
		hs.awaitLooking(ctx)
		s3.start(ctx)
		hs.awaitReady(ctx)
		Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"))

		for _, wrong := range []struct{ what, words, patch, right string }{
			{"another bucket", "NoSuchBucket", `{"spec":{"backup":{"replica":{"bucket":"other"}}}}`, `{"spec":{"backup":{"replica":{"bucket":"` + bucket + `"}}}}`},
			{"another path", "no matching backup files available", `{"spec":{"backup":{"replica":{"path":"other"}}}}`, `{"spec":{"backup":{"replica":{"path":"headscale"}}}}`},
		} {
			By(wrong.what)
			hs.awaitReplicated(ctx, "ada-lovelace")
			hs.lose()
			hs.patch(ctx, wrong.patch)
			hs.run()
			hs.awaitRestoreFailed(ctx, wrong.words)
			hs.patch(ctx, wrong.right)
			hs.awaitReady(ctx)
			Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"))
		}

		By("other credentials")
		hs.awaitReplicated(ctx, "ada-lovelace")
		hs.lose()
		hs.setSecret(ctx, "wrong")
		hs.run()
		hs.awaitRestoreFailed(ctx, "SignatureDoesNotMatch")
		hs.setSecret(ctx, secretKey)
		hs.awaitReady(ctx)
		Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"))
	})

	It("says that the storage is away, and that the credentials are wrong, while Headscale runs", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		hs.awaitBackedUp(ctx, metav1.ConditionTrue, v1beta1.ReasonReplicating)

		By("a storage that is away")
		s3.server.Kill()
		hs.addUser(ctx, "ada-lovelace")
		began := time.Now()
		hs.awaitBackedUp(ctx, metav1.ConditionFalse, v1beta1.ReasonNotReplicating)
		AddReportEntry("that the storage is away was said after", time.Since(began).Round(time.Second).String())
		Expect(meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionBackedUp).Message).To(
			ContainSubstring("kubectl logs headscale-0 -c litestream tells more"), "why is in Litestream's log alone")
		hs.awaitReady(ctx)
		s3.start(ctx)
		hs.awaitBackedUp(ctx, metav1.ConditionTrue, v1beta1.ReasonReplicating)
		hs.awaitReplicated(ctx, "ada-lovelace")

		By("other credentials, with which a pod starts")
		hs.setSecret(ctx, "wrong")
		hs.awaitBackedUp(ctx, metav1.ConditionFalse, v1beta1.ReasonNotReplicating)
		hs.awaitReady(ctx)
		Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"))
		hs.setSecret(ctx, secretKey)
		hs.awaitBackedUp(ctx, metav1.ConditionTrue, v1beta1.ReasonReplicating)

		By("a Litestream that ends, and is started again")
		hs.pod.Process(containerBackup).Kill()
		hs.awaitBackedUp(ctx, metav1.ConditionTrue, v1beta1.ReasonReplicating)
	})

	It("restores the backup from time to time, and says that it is damaged", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "verify_interval: 3s")
		hs.awaitReady(ctx)
		hs.addUser(ctx, "ada-lovelace")
		hs.awaitVerified(ctx, v1beta1.VerificationPassed, "")
		one, none := ptr.To[int64](1), ptr.To[int64](0)
		Eventually(func() *v1beta1.BackupRows { return hs.get(ctx).Status.BackupVerification.Rows }).Should(
			HaveValue(Equal(v1beta1.BackupRows{Users: one, Nodes: none, PreAuthKeys: none, APIKeys: one})))
		hs.awaitBackedUp(ctx, metav1.ConditionTrue, v1beta1.ReasonReplicating)

		By("a storage that takes no writes any more")
		s3.server.Kill()
		s3.start(ctx, "--readonly")
		hs.addUser(ctx, "grace-hopper")
		hs.awaitBackedUp(ctx, metav1.ConditionFalse, v1beta1.ReasonNotReplicating)
		Eventually(func() string {
			return meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionBackedUp).Message
		}).WithTimeout(backupPatience).Should(ContainSubstring("the storage could be read, so it is full, or these credentials may not write"))
		s3.server.Kill()
		s3.start(ctx)
		hs.awaitBackedUp(ctx, metav1.ConditionTrue, v1beta1.ReasonReplicating)

		By("a file of the backup that somebody damages")
		spoil := func() {
			damaged := 0
			Expect(filepath.WalkDir(filepath.Join(s3.dir, "objects", bucket), func(path string, _ os.DirEntry, err error) error {
				var content []byte
				if err == nil && filepath.Ext(path) == ".ltx" {
					content, err = os.ReadFile(path)
				}
				if errors.Is(err, fs.ErrNotExist) { // Objects come and go while it looks.
					return nil
				}
				if err != nil || len(content) == 0 {
					return err
				}
				content[len(content)/2] ^= 0xff
				damaged++
				return os.WriteFile(path, content, 0o600)
			})).To(Succeed())
			Expect(damaged).NotTo(BeZero())
		}
		spoil()
		hs.awaitBackedUp(ctx, metav1.ConditionFalse, v1beta1.ReasonVerificationFailed)
		failed := hs.get(ctx).Status.BackupVerification
		Expect(failed.Message).To(And(Not(BeEmpty()), Not(HavePrefix("time="))))
		AddReportEntry("what Litestream says of a damaged backup", failed.Message)
		hs.awaitReady(ctx)

		By("another place, where the whole database is replicated")
		hs.patch(ctx, `{"spec":{"backup":{"replica":{"path":"elsewhere"}}}}`)
		hs.awaitVerified(ctx, v1beta1.VerificationPassed, "")
		hs.awaitBackedUp(ctx, metav1.ConditionTrue, v1beta1.ReasonReplicating)
		Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace", "grace-hopper"))
	})

	It("begins empty only by a written word, and leaves the backup as it is", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		hs.addUser(ctx, "ada-lovelace")
		hs.awaitReplicated(ctx, "ada-lovelace")
		first := hs.incarnation(ctx)

		hs.patch(ctx, `{"spec":{"backup":{"restore":"Never"}}}`)
		hs.awaitReady(ctx)
		Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"), "a database that is there stays")
		// Neither database has the key that the Secret has then, which Ready does not know.
		key := keyOf(hs.awaitRest(ctx, secretName))
		hs.lose()
		hs.run()
		hs.awaitNext(ctx, first)
		key = keyOf(hs.awaitKey(ctx, secretName, key))
		Expect(hs.users(ctx)).To(BeEmpty())

		By("going back to the incarnation before")
		hs.patch(ctx, `{"spec":{"backup":{"restore":"WhenEmpty","restore_from":"`+first+`"}}}`)
		second := hs.incarnation(ctx)
		hs.lose()
		hs.run()
		hs.awaitNext(ctx, second)
		hs.awaitKey(ctx, secretName, key)
		Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"))
	})

	It("is restored to a point in time, once", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		hs.addUser(ctx, "before-the-mistake")
		hs.awaitReplicated(ctx, "before-the-mistake")
		// The next whole second: Litestream compares with the time of its files.
		at := time.Now().UTC().Truncate(time.Second).Add(time.Second)
		Eventually(time.Now).Should(BeTemporally(">", at))
		hs.addUser(ctx, "after-the-mistake")
		hs.awaitReplicated(ctx, "after-the-mistake")

		hs.patch(ctx, `{"spec":{"backup":{"restore":"`+at.Format(time.RFC3339)+`"}}}`)
		for _, users := range [][]string{{"before-the-mistake"}, {"before-the-mistake", "later"}} {
			incarnation := hs.incarnation(ctx)
			hs.lose()
			hs.run()
			hs.awaitNext(ctx, incarnation)
			Expect(hs.users(ctx)).To(ConsistOf(users))
			if len(users) == 1 {
				hs.addUser(ctx, "later")
				hs.awaitReplicated(ctx, "later")
			}
		}
	})

	It("is turned off, and on again as another incarnation", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		hs.addUser(ctx, "ada-lovelace")
		hs.awaitReplicated(ctx, "ada-lovelace")
		first, backup := hs.incarnation(ctx), hs.get(ctx).Spec.Backup

		hs.patch(ctx, `{"spec":{"backup":null}}`)
		hs.awaitReady(ctx)
		Eventually(func() *v1beta1.BackupStatus { return hs.get(ctx).Status.Backup }).Should(BeNil())
		Eventually(func() error {
			return admin.Get(ctx, client.ObjectKey{Namespace: hs.key.Namespace, Name: "headscale-backup"}, &corev1.ConfigMap{})
		}).Should(MatchError(ContainSubstring("not found")))
		hs.addUser(ctx, "grace-hopper")

		By("a replica that cannot be")
		hs.patch(ctx, `{"spec":{"backup":{"replica":{"type":"s3"}}}}`)
		Eventually(func(g Gomega) {
			ready := meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionReady)
			g.Expect(ready).To(HaveValue(HaveField("Message", ContainSubstring("spec.backup.replica.bucket must be set"))))
		}).Should(Succeed())
		Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace", "grace-hopper"), "Headscale runs")

		By("a storage that cannot be reached")
		s3.server.Kill()
		again, err := json.Marshal(map[string]any{"spec": map[string]any{"backup": backup}})
		Expect(err).NotTo(HaveOccurred())
		hs.patch(ctx, string(again))
		hs.awaitReady(ctx)
		Expect(hs.incarnation(ctx)).NotTo(Equal(first))
		Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace", "grace-hopper"), "its database is there, whatever the storage says")
		s3.start(ctx)
		hs.awaitReplicated(ctx, "grace-hopper")
	})

	It("goes on running where Litestream refuses a change, until it is corrected", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		hs.addUser(ctx, "ada-lovelace")
		hs.awaitReplicated(ctx, "ada-lovelace")
		incarnation, unchanged := hs.incarnation(ctx), hs.unchanged(ctx)
		pod := &corev1.Pod{}
		podKey := client.ObjectKey{Namespace: hs.key.Namespace, Name: hs.key.Name + "-0"}
		Expect(admin.Get(ctx, podKey, pod)).To(Succeed())
		for _, wrong := range []struct{ setting, value, words string }{
			{"sync-interval", `"abc"`, "cannot unmarshal !!str `abc` into time.Duration"},
			{"sync-interval", `"0s"`, "sync interval must be greater than 0"},
			{"part-size", `"much"`, "invalid size format"},
			{"sse-customer-key-path", `"/etc/litestream-files/none"`, `cannot read sse-customer-key-path "/etc/litestream-files/none"`},
		} {
			hs.patch(ctx, fmt.Sprintf(`{"spec":{"backup":{"replica":{%q:%s}}}}`, wrong.setting, wrong.value))
			ready := hs.awaitHeld(ctx, v1beta1.PreflightRefused)
			Expect(ready.Reason).To(Equal(v1beta1.ReasonInvalidConfig))
			Expect(ready.Message).To(And(ContainSubstring("Litestream refuses spec.backup: "), ContainSubstring(wrong.words), Not(ContainSubstring("time="))))
			AddReportEntry("what is said of "+wrong.setting, ready.Message)
			unchanged(ctx, wrong.setting)
			hs.patch(ctx, fmt.Sprintf(`{"spec":{"backup":{"replica":{%q:null}}}}`, wrong.setting))
			hs.awaitReady(ctx)
		}
		now := &corev1.Pod{}
		Expect(admin.Get(ctx, podKey, now)).To(Succeed())
		Expect(now.UID).To(Equal(pod.UID))
		hs.addUser(ctx, "grace-hopper")
		hs.awaitReplicated(ctx, "grace-hopper")

		By("a good value, which a preflight lets pass")
		s3.server.Kill()
		hs.patch(ctx, `{"spec":{"backup":{"replica":{"sync-interval":"2s"}}}}`)
		hs.awaitReady(ctx)
		Expect(hs.get(ctx).Status.Preflight).To(HaveValue(HaveField("Outcome", v1beta1.PreflightPassed)), "the storage is not asked")
		Expect(hs.incarnation(ctx)).To(Equal(incarnation))
		s3.start(ctx)
		hs.addUser(ctx, "katherine-johnson")
		hs.awaitReplicated(ctx, "katherine-johnson")
		Expect(s3.incarnations()).To(ConsistOf(incarnation))
	})

	It("goes on running while its storage is away", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		s3.server.Kill()
		hs.addUser(ctx, "ada-lovelace")
		hs.awaitReady(ctx)
		s3.start(ctx)
		hs.awaitReplicated(ctx, "ada-lovelace")
	})
})

// setSecret changes the secret key of the storage's credentials.
func (b *backedUp) setSecret(ctx context.Context, value string) {
	GinkgoHelper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: b.key.Namespace, Name: "backup-credentials"}}
	patch := fmt.Sprintf(`{"stringData":{"AWS_SECRET_ACCESS_KEY":%q}}`, value)
	Expect(admin.Patch(ctx, secret, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}
