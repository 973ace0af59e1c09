package integration_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const (
	// writesAfter are acknowledged after a trouble has lasted for troubleFor, while it goes on. It takes
	// some 100 ms to make a pre-auth key, most of them a hash, and seconds on a busy machine.
	writesAfter = 10
	// troubleFor is how long a trouble lasts during which Headscale is written to, unless the
	// environment variable BACKUP_TROUBLE_FOR says otherwise.
	troubleFor = 5 * time.Second
	// largestLog is how large the write-ahead log may become while the storage is away, in bytes:
	// SQLite begins it anew after 4 MB where Litestream, which reads it, lets it.
	largestLog = 32 << 20
	// blockedLog is how large it becomes at least while no checkpoint can be made.
	blockedLog = 8 << 20
	// firstTransaction begins the names of the objects that a restore can begin with.
	firstTransaction = "0000000000000001-"
)

// through is a storage that is reached by a proxy, which refuses to store anything where it is told
// to: versitygw knows no limit of a bucket's size.
func (s *storage) through(refuses *atomic.Bool) *storage {
	GinkgoHelper()
	behind, err := url.Parse("http://" + s.address)
	Expect(err).NotTo(HaveOccurred())
	proxy := httputil.NewSingleHostReverseProxy(behind)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && refuses.Load() {
			w.WriteHeader(http.StatusInsufficientStorage)
			_, _ = fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its minimum free drive threshold.</Message></Error>`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	DeferCleanup(front.Close)
	reached := *s
	reached.address = strings.TrimPrefix(front.URL, "http://")
	return &reached
}

// logSize is the size of the write-ahead log.
func (b *backedUp) logSize() int64 {
	info, err := os.Stat(b.pod.HostPath(containerHeadscale, databasePath) + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

// holdReaders keeps the locks of SQLite that its readers hold in a transaction, which blocks every
// checkpoint: https://sqlite.org/walformat.html#the_locking_protocol.
func (b *backedUp) holdReaders() (release func()) {
	GinkgoHelper()
	file, err := os.OpenFile(b.pod.HostPath(containerHeadscale, databasePath)+"-shm", os.O_RDWR, 0)
	Expect(err).NotTo(HaveOccurred())
	Eventually(func() error {
		return syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_RDLCK, Start: 123, Len: 5})
	}).Should(Succeed())
	return func() { _ = file.Close() }
}

// stateSize is the size of what Litestream keeps beside the database.
func (b *backedUp) stateSize() (size int64) {
	_ = filepath.WalkDir(filepath.Join(filepath.Dir(b.pod.HostPath(containerHeadscale, databasePath)), ".litestream"), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil {
			if info, err := entry.Info(); err == nil && !entry.IsDir() {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}

// lastCheckpoint is when the database itself was last written to.
func (b *backedUp) lastCheckpoint() time.Time {
	GinkgoHelper()
	info, err := os.Stat(b.pod.HostPath(containerHeadscale, databasePath))
	Expect(err).NotTo(HaveOccurred())
	return info.ModTime()
}

// goesOn writes to Headscale during a trouble of its backup, and returns how large the write-ahead
// log became.
func (w *writer) goesOn(ctx context.Context, trouble string) (largest int64) {
	GinkgoHelper()
	during := troubleFor
	if longer, err := time.ParseDuration(os.Getenv("BACKUP_TROUBLE_FOR")); err == nil {
		during = longer
	}
	b, before := w.hs, len(w.order)
	w.slowest = 0
	stop := w.start(ctx)
	Consistently(func(g Gomega) {
		largest = max(largest, b.logSize())
		g.Expect(env.Get(ctx, "http://"+b.pod.Address(containerHeadscale, "http")+"/health", "")).Error().NotTo(HaveOccurred())
	}).WithTimeout(during).Should(Succeed())
	written := w.written.Load()
	Eventually(w.written.Load).Should(BeNumerically(">=", written+writesAfter), trouble)
	stop()
	b.awaitReady(ctx)
	AddReportEntry(trouble, fmt.Sprintf("%d writes in %s, the slowest %s; write-ahead log %.1f MB at most, Litestream's files %.1f MB", len(w.order)-before, during, w.slowest.Round(time.Millisecond), float64(largest)/1e6, float64(b.stateSize())/1e6), ReportEntryVisibilityAlways)
	return largest
}

var _ = Describe("The backup of a Headscale in adversity", func() {
	var s3 *storage
	BeforeEach(func(ctx SpecContext) { s3 = newStorage(ctx) })

	It("holds up no write while the bucket is full, cannot be reached, or no checkpoint can be made", func(ctx SpecContext) {
		var full atomic.Bool
		hs := newBackedUp(ctx, s3.through(&full), "")
		hs.awaitReady(ctx)

		w := &writer{hs: hs, acknowledged: map[string]time.Time{}}

		full.Store(true)
		Expect(w.goesOn(ctx, "a full bucket")).To(BeNumerically("<=", largestLog))
		Eventually(hs.pod.Log).WithArguments(containerBackup).Should(ContainSubstring("XMinioStorageFull"))
		full.Store(false)
		hs.addUser(ctx, "after-the-full-bucket")
		hs.awaitReplicated(ctx, "after-the-full-bucket")

		s3.server.Kill()
		Expect(w.goesOn(ctx, "a storage that cannot be reached")).To(BeNumerically("<=", largestLog))
		s3.start(ctx)
		hs.addUser(ctx, "after-the-unreachable-bucket")
		hs.awaitReplicated(ctx, "after-the-unreachable-bucket")

		release := hs.holdReaders()
		written := hs.lastCheckpoint()
		w.goesOn(ctx, "a reader that blocks checkpoints")
		stop := w.start(ctx)
		// As fast as Headscale hashes keys.
		Eventually(hs.logSize).WithTimeout(10 * time.Minute).Should(BeNumerically(">", blockedLog))
		stop()
		Expect(hs.lastCheckpoint()).To(Equal(written), "no checkpoint was made meanwhile")
		hs.addUser(ctx, "during-the-blocked-checkpoint")
		hs.awaitReplicated(ctx, "during-the-blocked-checkpoint")
		release()
		hs.addUser(ctx, "after-the-blocked-checkpoint")
		Eventually(hs.lastCheckpoint).ShouldNot(Equal(written), "one is made as soon as it can be")
		incarnation := hs.incarnation(ctx)
		hs.lose()
		hs.run()
		hs.awaitNext(ctx, incarnation)
		Expect(hs.users(ctx)).To(ContainElements("after-the-full-bucket", "after-the-unreachable-bucket", "during-the-blocked-checkpoint"))
	})

	It("does not restore what is damaged, and says so", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		hs.addUser(ctx, "ada-lovelace")
		for _, damage := range []struct {
			what, words string
			do          func(path string, content []byte) error
		}{
			{"a byte that is flipped", "decode database", func(path string, content []byte) error {
				flipped := slices.Clone(content)
				flipped[len(flipped)/2] ^= 0xff
				return os.WriteFile(path, flipped, 0o600)
			}},
			{"objects that are cut", "decode database", func(path string, content []byte) error { return os.Truncate(path, int64(len(content)/2)) }},
			{"objects that are gone", "no matching backup files available", func(path string, _ []byte) error { return os.Remove(path) }},
		} {
			By(damage.what)
			hs.awaitReplicated(ctx, "ada-lovelace")
			incarnation := hs.incarnation(ctx)
			hs.lose()
			good := map[string][]byte{}
			for _, path := range s3.objects(incarnation) {
				// What does not begin with the first transaction is of no use alone.
				if !strings.HasPrefix(filepath.Base(path), firstTransaction) {
					continue
				}
				content, err := os.ReadFile(path)
				Expect(err).NotTo(HaveOccurred())
				good[path] = content
				Expect(damage.do(path, content)).To(Succeed())
			}
			Expect(good).NotTo(BeEmpty())
			hs.run()
			hs.awaitRestoreFailed(ctx, damage.words)

			By("putting the objects back")
			for path, content := range good {
				Expect(os.WriteFile(path, content, 0o600)).To(Succeed())
			}
			hs.awaitReady(ctx)
			Expect(hs.users(ctx)).To(ConsistOf("ada-lovelace"))
		}
	})

	It("says that a database is of a newer release than the one that is to run on it", func(ctx SpecContext) {
		hs := newBackedUp(ctx, s3, "")
		hs.awaitReady(ctx)
		hs.addUser(ctx, "ada-lovelace")
		hs.awaitReplicated(ctx, "ada-lovelace")
		incarnation := hs.incarnation(ctx)
		hs.stop()
		older := &backedUp{server: &server{key: client.ObjectKey{Namespace: newNamespace(ctx), Name: "headscale"}}, storage: s3}
		older.run()
		DeferCleanup(func() { older.stop() })
		apply(ctx, older.key.Namespace, strings.Replace(s3.manifest("restore_from: "+incarnation), serverbuild.DefaultHeadscale, "v0.28.0", 1))
		Eventually(func(g Gomega) {
			ready := meta.FindStatusCondition(older.get(ctx).Status.Conditions, v1beta1.ConditionReady)
			g.Expect(ready).To(HaveValue(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", v1beta1.ReasonCrashing),
				HaveField("Message", ContainSubstring("database_versions")))))
		}).Should(Succeed())

		By("choosing the release of the database")
		older.patch(ctx, `{"spec":{"version":"`+serverbuild.DefaultHeadscale+`"}}`)
		older.awaitReady(ctx)
		Expect(older.users(ctx)).To(ConsistOf("ada-lovelace"))
	})
})
