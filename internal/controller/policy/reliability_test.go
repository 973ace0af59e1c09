package policy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/transport"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// moment is where an operator is killed.
type moment string

const (
	// afterRead is before it is noted that a policy is sent.
	afterRead moment = "between reading and noting what it sends"
	// beforeSend is after that was noted.
	beforeSend moment = "between noting and sending"
	// afterSend is before the answer has arrived.
	afterSend moment = "between sending and the answer"
	// beforeResend is after a refusal, before what was in force is sent again.
	beforeResend moment = "between a refusal and sending again what was in force"
	// beforeStatus is after the answer.
	beforeStatus moment = "between the answer and the status"
)

// life is that of an operator that is killed at a moment: from then on, nothing that it asks for is
// done by anybody.
type life struct {
	at    moment
	armed atomic.Bool
	over  atomic.Bool
	sends atomic.Int32
}

// dies reports whether it is over, which it is from a moment on.
func (l *life) dies(at moment) bool {
	if l.armed.Load() && l.at == at {
		l.over.Store(true)
	}
	return l.over.Load()
}

// roundTrip is a request to the API server.
type roundTrip struct {
	life *life
	next http.RoundTripper
}

func (t *roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/status") {
		at := afterRead
		if t.life.sends.Load() > 0 {
			at = beforeStatus
		}
		t.life.dies(at)
	}
	if t.life.over.Load() {
		return nil, fmt.Errorf("%w: the operator is dead", headscale.ErrUnavailable)
	}
	return t.next.RoundTrip(r)
}

// mortal is a connection to a Headscale.
type mortal struct {
	*instancetest.Endpoint
	life *life
}

var errDead = fmt.Errorf("%w: the operator is dead", headscale.ErrUnavailable)

func (m *mortal) GetPolicy(ctx context.Context) (headscale.Policy, error) {
	if m.life.over.Load() {
		return headscale.Policy{}, errDead
	}
	return m.Endpoint.GetPolicy(ctx)
}

func (m *mortal) SetPolicy(ctx context.Context, text string) (headscale.Policy, error) {
	if !m.life.armed.Load() {
		return m.Endpoint.SetPolicy(ctx, text)
	}
	if m.life.dies(beforeSend) || m.life.sends.Add(1) > 1 && m.life.dies(beforeResend) {
		return headscale.Policy{}, errDead
	}
	set, err := m.Endpoint.SetPolicy(ctx, text)
	if m.life.dies(afterSend) {
		return headscale.Policy{}, errDead
	}
	return set, err
}

// startMortal starts an operator that lives that life.
func startMortal(namespace string, l *life) (stop func()) {
	return startOperatorWith(namespace, func(next http.RoundTripper) http.RoundTripper { return &roundTrip{l, next} })
}

// startOperatorWith starts an operator whose requests to the API server are seen by somebody.
func startOperatorWith(namespace string, wrap transport.WrapperFunc) (stop func()) {
	return cluster.StartOperator(&instancetest.Operator{
		Cached: CachedObjects(), Namespaces: []string{namespace}, Wrap: wrap,
		SetUp: func(running context.Context, m manager.Manager, instances *instance.Instances) error {
			r := &Reconciler{Client: m.GetClient(), Live: m.GetAPIReader(), Now: time.Now, Instances: instances}
			return r.SetupWithManager(running, m)
		},
	})
}

// isReported reports whether the status is about the policy as it is now.
func isReported(policy v1beta1.HeadscalePolicy) bool {
	return policy.Status.ObservedGeneration == policy.Generation
}

// eachServer has specs for each release, with what starts one and how to connect to it.
func eachServer(specs func(version string, start func(ctx context.Context) headscale.Dialer)) {
	for _, version := range releases {
		specs(version, func(ctx context.Context) headscale.Dialer {
			return headscale.UnixSocket(startHeadscale(ctx, version).SocketPath())
		})
	}
	specs("v0.30.0", func(ctx context.Context) headscale.Dialer {
		path := filepath.Join(cluster.Guard.Dir(), newNamespace(ctx))
		fake := headscaletest.New(path, headscaletest.V030)
		Expect(fake.Start()).To(Succeed())
		DeferCleanup(fake.Stop)
		return headscale.UnixSocket(path)
	})
}

var _ = Describe("An operator of policies that is killed", func() {
	eachServer(func(version string, start func(ctx context.Context) headscale.Dialer) {
		for _, refused := range []bool{false, true} {
			for _, at := range []moment{afterRead, beforeSend, afterSend, beforeResend, beforeStatus} {
				if at == beforeResend && !refused || refused && version == "v0.30.0" {
					continue // nothing is sent again, or the contract's server refuses nothing
				}
				name := "with a policy that is accepted"
				if refused {
					name = "with a policy that is refused"
				}
				It(fmt.Sprintf("%s, %s, is followed by one that ends it, with Headscale %s", at, name, version), func(ctx SpecContext) {
					l := &life{at: at}
					namespace := newNamespace(ctx)
					s := &server{}
					s.Server = cluster.NewServer(ctx, &instancetest.ServerOptions{
						Namespace: namespace, Version: version, Dial: start(ctx), Config: []string{"policy: {mode: database}"},
						API: func(connection *instancetest.Endpoint) instance.API { return &mortal{connection, l} },
					})
					stop := startMortal(namespace, l)
					put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
					isReady := func(g Gomega) string {
						g.Expect(get(ctx, namespace, "base")(g)).To(HaveValue(Satisfy(isReported)))
						return condition(ctx, namespace, "base")(g)
					}
					Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
					// The status of what was sent has been written, so that the next write is of another one.
					Eventually(func(g Gomega) string { return get(ctx, namespace, "base")(g).Status.SendingDigest }).WithContext(ctx).Should(BeEmpty())
					l.armed.Store(true)
					dst := "*:443"
					if refused {
						dst = "group:nobody:443"
					}
					put(ctx, namespace, policyManifest("base", `policy: {acls: [{action: accept, src: ["*"], dst: ["`+dst+`"]}]}`))
					Eventually(l.over.Load).WithContext(ctx).Should(BeTrue())
					stop()

					l.armed.Store(false)
					l.over.Store(false)
					startMortal(namespace, &life{})
					if refused {
						Eventually(isReady).WithContext(ctx).Should(HavePrefix("False Refused: "))
					} else {
						Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
					}
					Eventually(func(g Gomega) string { return get(ctx, namespace, "base")(g).Status.SendingDigest }).WithContext(ctx).Should(BeEmpty())
					inForce := s.inForce(ctx)(NewWithT(GinkgoT()))
					if refused {
						Expect(inForce).To(Equal("{" + rules(22) + "}"))
					} else {
						Expect(inForce).To(Equal("{" + rules(443) + "}"))
					}
					Expect(get(ctx, namespace, "base")(NewWithT(GinkgoT())).Status.Corrections).To(BeZero(), "it is not taken for a change by hand")
				})
			}
		}
	})
})

var _ = Describe("Two operators of policies", func() {
	It("end in the last of many changes, and do not take each other for somebody else", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		s := newServer(ctx, namespace, "v0.29.3", headscale.UnixSocket(startHeadscale(ctx, "v0.29.3").SocketPath()))
		startOperator(namespace)
		startOperator(namespace)
		for port := 1; port <= 50; port++ {
			put(ctx, namespace, policyManifest("a", "policy: {acls: "+rule(port)+"}"))
			put(ctx, namespace, policyManifest("b", "policy: {acls: "+rule(1000+port)+"}"))
		}
		Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(50, 1050) + "}"))
		for _, name := range []string{"a", "b"} {
			Eventually(condition(ctx, namespace, name)).WithContext(ctx).Should(HavePrefix("True Ready: "))
		}
		// Conditions may be those of policies before. What one of them has decided may be sent
		// after the other one was done.
		sent := -1
		Eventually(func(g Gomega) {
			before := sent
			sent = s.setCount()
			g.Expect(sent).To(Equal(before))
			g.Expect(s.inForce(ctx)(g)).To(Equal("{" + rules(50, 1050) + "}"))
		}).WithContext(ctx).WithPolling(4 * instancetest.MaxAge).Should(Succeed())
		Consistently(s.setCount).Should(Equal(sent))
		Expect(events(ctx, namespace, "a")(NewWithT(GinkgoT()))).NotTo(ContainElement(HavePrefix("PolicyCorrected")))
	})
})

// lateWatch has an operator get no events of HeadscalePolicies once it is late, until it goes on.
type lateWatch struct {
	next http.RoundTripper
	late atomic.Bool
	on   chan struct{}
}

func (l *lateWatch) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") != "" && strings.HasSuffix(r.URL.Path, "/headscalepolicies") {
		response.Body = &lateBody{response.Body, l}
	}
	return response, err
}

type lateBody struct {
	io.ReadCloser
	watch *lateWatch
}

func (b *lateBody) Read(into []byte) (int, error) {
	n, err := b.ReadCloser.Read(into)
	if b.watch.late.Load() {
		<-b.watch.on
	}
	return n, err
}

var _ = Describe("An operator of policies whose cache is late", func() {
	It("does not take for somebody else what another one has applied", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		s := newServer(ctx, namespace, "v0.29.3", headscale.UnixSocket(startHeadscale(ctx, "v0.29.3").SocketPath()))
		late := &lateWatch{on: make(chan struct{})}
		startOperatorWith(namespace, func(next http.RoundTripper) http.RoundTripper {
			late.next = next
			return late
		})
		goOn := sync.OnceFunc(func() { close(late.on) })
		DeferCleanup(goOn)
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
		Eventually(condition(ctx, namespace, "base")).WithContext(ctx).Should(HavePrefix("True Ready: "))
		late.late.Store(true)
		startOperator(namespace)
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(23)+"}"))
		Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(23) + "}"))
		sent := s.setCount()
		Consistently(s.setCount).WithTimeout(4 * instancetest.MaxAge).Should(Equal(sent))
		goOn()
		Eventually(condition(ctx, namespace, "base")).WithContext(ctx).Should(HavePrefix("True Ready: "))
		Expect(get(ctx, namespace, "base")(NewWithT(GinkgoT())).Status.Corrections).To(BeZero())
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(23) + "}"))
	})
})
