package integration_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

const (
	// longestCalm is how long Headscale is written to before it is struck, at the longest.
	longestCalm = 3 * time.Second
	// lanes is how many Headscales are struck side by side: most of it is waiting.
	lanes = 2
)

// blow is something that happens to a Headscale with a backup.
type blow struct {
	what string
	// times is how often, in all.
	times int
	// volume is whether the volume goes, too, and abrupt whether nothing ends in order.
	volume, abrupt bool
	strike         func(context.Context, *backedUp)
}

// blows are 20.
var blows = []blow{
	{what: "SIGKILL of everything at once, node and volume gone", times: 8, volume: true, abrupt: true, strike: func(_ context.Context, hs *backedUp) { hs.lose() }},
	{what: "pod and volume deleted", times: 4, volume: true, strike: func(_ context.Context, hs *backedUp) { hs.delete() }},
	{what: "SIGKILL of everything at once", times: 3, strike: func(_ context.Context, hs *backedUp) { hs.killAll() }},
	{what: "SIGKILL of Headscale", times: 1, strike: func(_ context.Context, hs *backedUp) { hs.kill(containerHeadscale) }},
	{what: "SIGKILL of Litestream", times: 2, strike: func(_ context.Context, hs *backedUp) { hs.kill(containerBackup) }},
	{what: "SIGKILL of the API Key Manager", times: 1, strike: func(_ context.Context, hs *backedUp) { hs.kill(containerManager) }},
	{what: "SIGKILL of the S3 server", times: 1, strike: func(ctx context.Context, hs *backedUp) {
		hs.storage.server.Kill()
		hs.storage.start(ctx)
	}},
}

// outcome is what a blow did.
type outcome struct {
	blow
	acknowledged, lost int
	// age is how long before the blow the oldest of what is lost was acknowledged.
	age time.Duration
	// ready is how long it took until Headscale was ready, and key how long until the key in the
	// Secret worked after that.
	ready, key time.Duration
}

var _ = Describe("A Headscale with a backup that is written to all the time", func() {
	It("loses only what was acknowledged just before its volume was lost, struck 20 times at random moments", func(ctx SpecContext) {
		seed := uint64(GinkgoRandomSeed())
		By(fmt.Sprintf("striking with the seed %d (-ginkgo.seed)", seed))
		random := rand.New(rand.NewPCG(seed, 0))
		var all []blow
		for _, b := range blows {
			all = append(all, slices.Repeat([]blow{b}, b.times)...)
		}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		outcomes := make([][]outcome, lanes)
		var running sync.WaitGroup
		for lane, part := range slices.Collect(slices.Chunk(all, len(all)/lanes)) {
			s3, random := newStorage(ctx), rand.New(rand.NewPCG(seed, uint64(lane+1)))
			running.Go(func() {
				defer GinkgoRecover()
				outcomes[lane] = strikeInTurn(ctx, newBackedUp(ctx, s3, ""), random, part)
			})
		}
		running.Wait()
		report(seed, slices.Concat(outcomes...))
	})
})

// report notes what came of each kind of blow.
func report(seed uint64, outcomes []outcome) {
	GinkgoHelper()
	for _, b := range blows {
		var acknowledged, lost int
		var age, key time.Duration
		var ready []time.Duration
		for _, o := range outcomes {
			if o.what != b.what {
				continue
			}
			acknowledged, lost, age, key = acknowledged+o.acknowledged, lost+o.lost, max(age, o.age), max(key, o.key)
			ready = append(ready, o.ready)
		}
		Expect(ready).To(HaveLen(b.times), b.what)
		slices.Sort(ready)
		AddReportEntry(b.what, fmt.Sprintf("seed %d, %d times, %d writes acknowledged, %d lost, the oldest %.2f s before; ready after %.1f s / %.1f s, key after %.2f s",
			seed, b.times, acknowledged, lost, age.Seconds(), ready[len(ready)/2].Seconds(), ready[len(ready)-1].Seconds(), key.Seconds()), ReportEntryVisibilityAlways)
	}
}

// strikeInTurn strikes a Headscale again and again while it is written to.
func strikeInTurn(ctx context.Context, hs *backedUp, random *rand.Rand, all []blow) (outcomes []outcome) {
	GinkgoHelper()
	hs.awaitReady(ctx)
	w := &writer{hs: hs, acknowledged: map[string]time.Time{}}
	incarnations := []string{hs.incarnation(ctx)}
	for _, b := range all {
		o := outcome{blow: b}
		before := len(w.acknowledged)
		// Until then there is nothing but the volume.
		Eventually(hs.storage.objects).WithArguments(incarnations[len(incarnations)-1]).ShouldNot(BeEmpty())
		stop := w.start(ctx)
		wait := time.NewTimer(time.Duration(random.Int64N(int64(longestCalm))))
		<-wait.C
		struck := time.Now()
		b.strike(ctx, hs)
		if b.volume {
			stop()
			hs.run()
			Eventually(func() string { return hs.incarnation(ctx) }).ShouldNot(Equal(incarnations[len(incarnations)-1]), b.what)
			Expect(incarnations).NotTo(ContainElement(hs.incarnation(ctx)), "each database has a path of its own")
			incarnations = append(incarnations, hs.incarnation(ctx))
		}
		o.ready, o.key = hs.awaitBack(ctx, struck)
		if !b.volume {
			stop()
		}
		o.acknowledged = len(w.acknowledged) - before
		o.lost, o.age = w.forgetLost(ctx, struck)
		if b.volume && b.abrupt {
			// All that was there before this round was replicated, but perhaps for the pre-auth key of the user
			// that was waited for. How long before the blow the rest was written is reported.
			Expect(len(w.order)).To(BeNumerically(">=", before-1), b.what)
		} else {
			Expect(o.lost).To(BeZero(), b.what)
		}
		if !b.volume {
			hs.awaitReplicated(ctx, w.last)
		}
		outcomes = append(outcomes, o)
	}
	hs.awaitReplicated(ctx, w.last)
	Expect(hs.storage.incarnations()).To(ConsistOf(incarnations))
	return outcomes
}

// awaitBack waits until Headscale answers after a blow, and the key in the Secret works.
func (b *backedUp) awaitBack(ctx context.Context, struck time.Time) (ready, key time.Duration) {
	GinkgoHelper()
	Eventually(func() (int, error) {
		status, _, err := env.Get(ctx, "http://"+b.pod.Address(containerHeadscale, "http")+"/health", "")
		return status, err
	}).Should(Equal(http.StatusOK))
	since := time.Now()
	Eventually(func(g Gomega) {
		secret, err := b.secret(ctx, secretName)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(b.keyStatus(ctx, keyOf(secret))).To(Equal(http.StatusOK))
	}).Should(Succeed())
	return since.Sub(struck), time.Since(since)
}

// writer registers users and pre-auth keys in a Headscale, as fast as it answers.
type writer struct {
	hs *backedUp
	n  int
	// acknowledged has when Headscale answered, by what was written.
	acknowledged map[string]time.Time
	// order is what was written, as it was acknowledged, and last the last user of it.
	order []string
	last  string
	// slowest is how long the slowest write took, and written how many there were, which may be read
	// at any time.
	slowest time.Duration
	written atomic.Int64
}

// start writes until stop is called. What was acknowledged is to be read after that only.
func (w *writer) start(ctx context.Context) (stop func()) {
	socket := headscale.UnixSocket(w.hs.pod.HostPath(containerManager, v1beta1.DefaultSocketPath))
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			client := headscale.NewClient(socket)
			for w.write(ctx, client) == nil && ctx.Err() == nil {
			}
			_ = client.Close()
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// write registers a user of a new name, and a pre-auth key of it.
func (w *writer) write(ctx context.Context, client *headscale.Client) error {
	w.n++
	name, began := fmt.Sprintf("user-number-%04d", w.n), time.Now()
	user, err := client.CreateUser(ctx, headscale.NewUser{Name: name})
	if err != nil {
		return err
	}
	w.note(name, began)
	w.last, began = name, time.Now()
	if _, err = client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.ID, Expiration: time.Now().Add(time.Hour)}); err != nil {
		return err
	}
	w.note(keyFor(name), began)
	return nil
}

// note remembers what Headscale acknowledged, and how long that took.
func (w *writer) note(what string, began time.Time) {
	w.acknowledged[what] = time.Now()
	w.order = append(w.order, what)
	w.slowest = max(w.slowest, time.Since(began))
	w.written.Add(1)
}

// keyFor is how the pre-auth key of a user is called.
func keyFor(user string) string { return "key of " + user }

// forgetLost counts what was acknowledged and is not there any more, and how long before the blow
// the oldest of it was. What is lost must be the last that was acknowledged.
func (w *writer) forgetLost(ctx context.Context, struck time.Time) (lost int, age time.Duration) {
	GinkgoHelper()
	client := headscale.NewClient(headscale.UnixSocket(w.hs.pod.HostPath(containerManager, v1beta1.DefaultSocketPath)))
	defer func() { _ = client.Close() }()
	users, err := client.ListUsers(ctx)
	Expect(err).NotTo(HaveOccurred())
	keys, err := client.ListPreAuthKeys(ctx, nil)
	Expect(err).NotTo(HaveOccurred())
	names, present := map[uint64]string{}, map[string]bool{}
	for _, user := range users {
		names[user.ID], present[user.Name] = user.Name, true
	}
	for _, key := range keys {
		present[keyFor(names[key.UserID])] = true
	}
	kept := slices.IndexFunc(w.order, func(what string) bool { return !present[what] })
	if kept < 0 {
		return 0, 0
	}
	age = struck.Sub(w.acknowledged[w.order[kept]])
	for _, what := range w.order[kept:] {
		Expect(present).NotTo(HaveKey(what), "%s is there, and %s, which was acknowledged before, is not", what, w.order[kept])
		delete(w.acknowledged, what)
	}
	lost = len(w.order) - kept
	w.order = w.order[:kept]
	w.last = "user-number-"
	return lost, max(age, 0)
}

// delete ends the pod in order, and deletes its volume.
func (b *backedUp) delete() {
	GinkgoHelper()
	volume := filepath.Dir(b.pod.HostPath(containerHeadscale, databasePath))
	Expect(volume).To(BeADirectory())
	b.stop()
	Expect(os.RemoveAll(volume)).To(Succeed())
}

// kill kills a container, which may be about to start.
func (b *backedUp) kill(container string) {
	GinkgoHelper()
	var running *process.Process
	Eventually(func() *process.Process { running = b.pod.Process(container); return running }).ShouldNot(BeNil())
	running.Kill()
}

// killAll kills all containers at once.
func (b *backedUp) killAll() {
	var running sync.WaitGroup
	for _, name := range []string{containerHeadscale, containerBackup, containerManager} {
		if p := b.pod.Process(name); p != nil {
			running.Go(p.Kill)
		}
	}
	running.Wait()
}
