package reliability_test

import (
	"context"
	"fmt"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const (
	sectionStop = "stop"
	sectionSays = "says"
)

// terminationLimit is how long a manager may take to end: two seconds, and five for a busy machine. That
// is less than what is left of a call that hangs, which ends by itself after ten.
const terminationLimit = 7 * time.Second

// situation is what a manager is doing when it is told to end.
type situation struct {
	name string
	// enter starts the manager and brings it there.
	enter func(ctx context.Context, w *world)
}

var situations = []situation{
	{"waiting for a Headscale that is not there", func(ctx context.Context, w *world) {
		w.stopHeadscale()
		w.run(calm...)
		w.hears(ctx, apikey.ReasonHeadscaleUnavailable)
		Expect(w.news()).To(ContainSubstring("Waiting for Headscale to be ready..."))
	}},
	{"waiting for a Headscale that hangs", func(ctx context.Context, w *world) {
		w.run(calm...)
		w.heals(ctx)
		w.freeze()
		w.requestRotation(ctx)
		w.staysUp(ctx, time.Second)
	}},
	{"waiting for an API server that is not there", func(ctx context.Context, w *world) {
		Expect(w.api.Leave()).To(Succeed())
		w.run(calm...)
		w.hears(ctx, apikey.ReasonKubernetesUnavailable)
	}},
	{"waiting for an API server that hangs", func(ctx context.Context, w *world) {
		DeferCleanup(w.api.Hang())
		w.run(calm...)
		w.staysUp(ctx, time.Second)
	}},
	{"at rest", func(ctx context.Context, w *world) { w.managed(ctx, calm...) }},
	{"creating a key", func(ctx context.Context, w *world) {
		w.faults.Inject(headscaletest.Fault{On: headscaletest.Create, Delay: time.Minute, Times: 1})
		w.run(calm...)
		Eventually(ctx, w.secret).ShouldNot(BeNil())
		w.staysUp(ctx, time.Second)
	}},
	{"storing a key", func(ctx context.Context, w *world) {
		denyWrites(noKeyInside)(ctx, w)
		w.run(calm...)
		w.hears(ctx, apikey.ReasonKubernetesRefused)
	}},
	{"waiting to expire the old key", func(ctx context.Context, w *world) {
		w.managed(ctx, append([]string{"--revocation-delay=10m"}, calm...)...)
		w.requestRotation(ctx)
		Eventually(ctx, w.retiring).Should(HaveLen(1))
	}},
	{"between two attempts to make a key", func(ctx context.Context, w *world) {
		w.faults.Inject(headscaletest.Fault{On: headscaletest.Create, Do: headscaletest.Refuse})
		w.run(calm...)
		w.hears(ctx, apikey.ReasonHeadscaleFailed)
	}},
	{"blocked by a Secret that is not ours", func(ctx context.Context, w *world) {
		w.managed(ctx, calm...)
		w.edit(ctx, func(s *corev1.Secret) { s.Labels = nil })
		w.hears(ctx, rotation.ReasonNotOurs)
	}},
}

var _ = Describe("Told to end, a manager", func() {
	eachHeadscale("ends soon whatever it does", func(ctx SpecContext, version string) {
		together(situations, func(s situation) {
			w := newWorld(ctx, freshHeadscale(ctx, version), faulty)
			s.enter(ctx, w)
			began := time.Now()
			Expect(w.manager.Stop(terminationLimit)).To(Succeed(), s.name)
			took := time.Since(began)
			Expect(w.manager.ExitCode()).To(BeZero(), s.name)
			note(observation{
				Section: sectionStop, Failure: "SIGTERM while " + s.name, Produced: "signal", Headscale: version,
				Heal: []float64{took.Seconds()},
			})
		})
	})
})

// hears waits until the manager says the reason.
func (w *world) hears(ctx context.Context, reason rotation.Reason) {
	GinkgoHelper()
	Eventually(ctx, w.news).Should(ContainSubstring(saying(reason)))
}

// stopHeadscale stops Headscale until the spec is over.
func (w *world) stopHeadscale() {
	GinkgoHelper()
	Expect(w.headscale.Stop()).To(Succeed())
	DeferCleanup(func(ctx SpecContext) error { return w.headscale.Start(ctx) })
}

// freeze has Headscale hang: it lets calls in and answers none until the spec ends.
func (w *world) freeze() {
	GinkgoHelper()
	if h, ok := w.headscale.(*fakeHeadscale); ok {
		h.Freeze()
		DeferCleanup(h.Thaw)
		return
	}
	h, ok := w.headscale.(*realHeadscale)
	Expect(ok).To(BeTrue())
	Expect(h.Process().Signal(syscall.SIGSTOP)).To(Succeed())
	DeferCleanup(func() error { return h.Process().Signal(syscall.SIGCONT) })
}

// failureToBear is one that lasts, and how many lines it may be worth.
type failureToBear struct {
	name  string
	begin func(ctx context.Context, w *world)
	lines int
}

// failuresToBear begin with a manager at rest. Each is worth one line, and one more where
// a key is stored before, Headscale is gone for a moment, the watch of the Secret ends, or a look
// fails before Headscale is gone and another one after it.
var failuresToBear = []failureToBear{
	{"Headscale away", func(_ context.Context, w *world) { w.stopHeadscale() }, 1},
	{"Headscale hangs", func(ctx context.Context, w *world) { w.freeze(); w.requestRotation(ctx) }, 1},
	{"the API server away", func(ctx context.Context, w *world) { apiServerAway.leave(ctx, w); restartSocket(ctx, w) }, 4},
	{"no right to write", func(ctx context.Context, w *world) { withdrawRights(ctx, w); w.requestRotation(ctx) }, 1},
	{"admission denies", func(ctx context.Context, w *world) { denyWrites("false")(ctx, w); w.requestRotation(ctx) }, 1},
	{"not our Secret", func(ctx context.Context, w *world) { w.edit(ctx, func(s *corev1.Secret) { s.Labels = nil }) }, 1},
	{"Headscale refuses to create", func(ctx context.Context, w *world) {
		w.faults.Inject(headscaletest.Fault{On: headscaletest.Create, Do: headscaletest.Refuse})
		w.requestRotation(ctx)
	}, 1},
	{"Headscale refuses to expire", func(ctx context.Context, w *world) {
		w.faults.Inject(headscaletest.Fault{On: headscaletest.Expire, Do: headscaletest.Refuse})
		w.requestRotation(ctx)
	}, 2},
}

// restartSocket restarts Headscale, upon which the manager looks at everything.
func restartSocket(ctx context.Context, w *world) {
	GinkgoHelper()
	Expect(w.headscale.Stop()).To(Succeed())
	Expect(w.headscale.Start(ctx)).To(Succeed())
}

var _ = Describe("While a failure lasts, a manager", func() {
	for _, length := range []struct {
		time.Duration
		labels Labels
	}{{10 * time.Second, nil}, {time.Minute, Label(slow)}} {
		It(fmt.Sprintf("says so once and not at each attempt, for %s", length.Duration), length.labels, func(ctx SpecContext) {
			together(failuresToBear, func(f failureToBear) {
				w := newWorld(ctx, freshHeadscale(ctx, contractServer), faulty).managed(ctx, calm...)
				w.terminate()
				w.hear()
				w.run(calm...) // A new process may make a key at once.
				w.hears(ctx, rotation.ReasonUpToDate)
				w.rests(ctx)
				w.hear()
				f.begin(ctx, w)
				w.staysUp(ctx, length.Duration)
				lines := countLines(w.news())
				note(observation{
					Section: sectionSays, Failure: fmt.Sprintf("%s for %s", f.name, length.Duration), Produced: "as in the tables above",
					Headscale: contractServer, Note: fmt.Sprintf("%d", lines),
				})
				Expect(lines).To(BeNumerically("<=", f.lines), "%s:\n%s", f.name, w.news())
			})
		})
	}
})
