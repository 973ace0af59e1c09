package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/tailscale/hujson"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
)

var (
	cluster      = &instancetest.Cluster{}
	newNamespace = cluster.NewNamespace
	put          = cluster.Apply
	send         = cluster.Send
	// admin acts as the user of a cluster.
	admin client.Client
)

func TestController(t *testing.T) { instancetest.Run(t, "HeadscalePolicies") }

var _ = cluster.ExpectKstatus(v1beta1.KindPolicy)

var _ = BeforeSuite(func(ctx SpecContext) {
	cluster.Start(ctx, "policy")
	admin = cluster.Admin
})

// startOperator starts an operator that watches all namespaces, or some. It returns what stops it.
func startOperator(namespaces ...string) (stop func()) {
	GinkgoHelper()
	return cluster.StartOperator(&instancetest.Operator{
		Cached: CachedObjects(), Namespaces: namespaces, Wrap: rights.Wrap,
		SetUp: func(running context.Context, m manager.Manager, instances *instance.Instances) error {
			r := &Reconciler{Client: m.GetClient(), Live: m.GetAPIReader(), Now: time.Now, Instances: instances}
			return r.SetupWithManager(running, m)
		},
	})
}

// server is a Headscale with all that the operator finds it by.
type server struct {
	*instancetest.Server

	lock sync.Mutex
	// failSets is how many of the next policies are not sent at all, and sets counts those that were
	// asked for.
	failSets, sets int
	// failsAt is which of those fails.
	failsAt int
}

// newServer creates a Headscale named headscale in a namespace, behind which is what a dialer
// connects to.
func newServer(ctx context.Context, namespace, version string, dial headscale.Dialer) *server {
	GinkgoHelper()
	s := &server{}
	s.Server = cluster.NewServer(ctx, &instancetest.ServerOptions{
		Namespace: namespace, Version: version, Dial: dial, Config: []string{"policy: {mode: database}"},
		API: func(connection *instancetest.Endpoint) instance.API { return &endpoint{connection, s} },
	})
	return s
}

// endpoint is a connection to a server.
type endpoint struct {
	*instancetest.Endpoint
	server *server
}

func (e *endpoint) SetPolicy(ctx context.Context, text string) (headscale.Policy, error) {
	return instancetest.Write(e.Endpoint, func() (headscale.Policy, error) {
		if e.server.failsThis() {
			return headscale.Policy{}, fmt.Errorf("%w: connection reset", headscale.ErrUnavailable)
		}
		return e.Client.SetPolicy(ctx, text)
	})
}

// startHeadscale starts a real Headscale for one container of specs.
func startHeadscale(ctx context.Context, version string) *env.Headscale {
	GinkgoHelper()
	return cluster.StartHeadscale(ctx, version, map[string]any{"policy": map[string]any{"mode": "database"}})
}

// policyManifest is a HeadscalePolicy with a spec besides its reference.
func policyManifest(name, spec string) string {
	return "{apiVersion: headscale.infrado.cloud/v1beta1, kind: HeadscalePolicy, metadata: {name: " + name + "}, spec: {headscaleRef: headscale, " + spec + "}}"
}

// inForce is what Headscale has, without comments and spaces, and with its keys sorted.
func (s *server) inForce(ctx context.Context) func(g Gomega) string {
	return func(g Gomega) string {
		policy, err := s.Direct.GetPolicy(ctx)
		if errors.Is(err, headscale.ErrNoPolicy) {
			return ""
		}
		g.Expect(err).NotTo(HaveOccurred())
		text, err := hujson.Standardize([]byte(policy.Text))
		g.Expect(err).NotTo(HaveOccurred())
		var value any
		g.Expect(json.Unmarshal(text, &value)).To(Succeed())
		text, err = json.Marshal(value)
		g.Expect(err).NotTo(HaveOccurred())
		return string(text)
	}
}

// byHand sets a policy past the operator.
func (s *server) byHand(ctx context.Context, text string) {
	GinkgoHelper()
	_, err := s.Direct.SetPolicy(ctx, text)
	Expect(err).NotTo(HaveOccurred())
}

// failsThis counts a policy that is asked for, and reports whether it is not sent.
func (s *server) failsThis() bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.sets++
	fails := s.failSets > 0
	s.failSets = max(0, s.failSets-1)
	return fails || s.sets == s.failsAt
}

// failNext has the next policies not be sent at all.
func (s *server) failNext(times int) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.failSets = times
}

// failAt has the policy of a number not be sent.
func (s *server) failAt(number int) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.failsAt = number
}

// fake reports whether it is no real Headscale.
func (s *server) fake() bool { return s.Version == "v0.30.0" }

// setCount is how many policies the operator has sent.
func (s *server) setCount() int {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.sets
}

// get reads a HeadscalePolicy; nil: there is none.
func get(ctx context.Context, namespace, name string) func(g Gomega) *v1beta1.HeadscalePolicy {
	return instancetest.Get[v1beta1.HeadscalePolicy](ctx, cluster, namespace, name)
}

// condition reads the condition Ready.
func condition(ctx context.Context, namespace, name string) func(g Gomega) string {
	return func(g Gomega) string {
		policy := get(ctx, namespace, name)(g)
		g.Expect(policy).NotTo(BeNil())
		return instancetest.Ready(policy.Status.Conditions)
	}
}

// events are the reasons and messages of the events about an object of a name.
func events(ctx context.Context, namespace, name string) func(g Gomega) []string {
	return cluster.Events(ctx, "", namespace, name)
}

// remove deletes a HeadscalePolicy.
func remove(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	Expect(admin.Delete(ctx, &v1beta1.HeadscalePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})).To(Succeed())
}
