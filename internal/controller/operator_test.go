package controller

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"infrado.cloud/headscale-operator/internal/resources"
)

// managerImage is the operator's own image of the API Key Manager in these tests.
const managerImage = "registry.example/apikey-manager:test"

// operator is an operator that looks after one namespace, under the rights that it
// is shipped with, with a clock of its own.
type operator struct {
	namespace string
	// stop ends the operator and waits for its end.
	stop func()

	offset atomic.Int64
	passes atomic.Int64

	lock   sync.Mutex
	writes []string

	// metrics is what the operator tells Prometheus.
	metrics *prometheus.Registry

	// refuse, if it is set, is a part of the paths that cannot be written to.
	refuse atomic.Pointer[string]
}

// startOperator makes a namespace and an operator for it, both for one spec.
func startOperator(ctx context.Context) *operator {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "spec-"}}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
	return startOperatorIn(namespace.Name)
}

// startOperatorIn makes an operator for a namespace, for one spec.
func startOperatorIn(namespace string) *operator {
	GinkgoHelper()
	return startOperatorAs(operatorUser, namespace)
}

// startOperatorAs makes an operator that acts as a user, for one spec.
func startOperatorAs(userName, namespace string) *operator {
	GinkgoHelper()
	o := &operator{namespace: namespace}
	user := rest.CopyConfig(adminConfig)
	user.Impersonate = rest.ImpersonationConfig{UserName: userName}
	user.Wrap(func(next http.RoundTripper) http.RoundTripper { return &recorder{o, next} })
	skip := true
	m, err := manager.New(user, manager.Options{
		Scheme:     scheme,
		Cache:      CacheOptions([]string{namespace}),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &skip},
	})
	Expect(err).NotTo(HaveOccurred())
	reconciler := &HeadscaleReconciler{
		Client:  m.GetClient(),
		Live:    m.GetAPIReader(),
		Options: resources.Options{ManagerImage: managerImage},
		Now:     o.now,
	}
	o.metrics = prometheus.NewPedanticRegistry()
	o.metrics.MustRegister(reconciler.Metrics(m, "v1.2.3", "abcdef"))
	running, stop := context.WithCancel(context.Background())
	Expect(reconciler.SetupWithManager(running, m)).To(Succeed())
	done := make(chan error)
	go func() { done <- m.Start(running) }()
	o.stop = sync.OnceFunc(func() {
		stop()
		Eventually(done).Should(Receive(BeNil()))
	})
	DeferCleanup(o.stop)
	return o
}

// now is the operator's clock, which it looks at once in every pass.
func (o *operator) now() time.Time {
	o.passes.Add(1)
	return o.time()
}

// time is what the operator's clock shows.
func (o *operator) time() time.Time {
	return time.Now().Add(time.Duration(o.offset.Load()))
}

// advance puts the operator's clock forward.
func (o *operator) advance(d time.Duration) {
	o.offset.Add(int64(d))
}

// written lists the writes of the operator so far, as method and path, without
// events: those are sent some time after what they tell of.
func (o *operator) written() []string {
	o.lock.Lock()
	defer o.lock.Unlock()
	return append([]string(nil), o.writes...)
}

// recorder notes the requests of an operator that change something.
type recorder struct {
	operator *operator
	next     http.RoundTripper
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method != http.MethodGet && !strings.Contains(request.URL.Path, "/leases/") {
		if strings.Contains(request.URL.Path, "/events") {
			return r.next.RoundTrip(request)
		}
		r.operator.lock.Lock()
		r.operator.writes = append(r.operator.writes, request.Method+" "+request.URL.Path)
		r.operator.lock.Unlock()
		if part := r.operator.refuse.Load(); part != nil && strings.Contains(request.URL.Path, *part) {
			return nil, errors.New("the API server is away")
		}
	}
	return r.next.RoundTrip(request)
}
