package headscale

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
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
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/internal/kube/kubetest"
	"infrado.cloud/headscale-operator/internal/kube/metrics"
	"infrado.cloud/headscale-operator/internal/resources"
)

// managerImage is the operator's own image of the API Key Manager in these tests.
const managerImage = "registry.example/apikey-manager:test"

// operator is an operator that watches one namespace, under the rights that it
// is shipped with, with a clock of its own.
type operator struct {
	namespace string
	// stop ends the operator and waits for its end.
	stop func()

	offset atomic.Int64
	passes atomic.Int64

	reconciler *Reconciler

	lock     sync.Mutex
	requests []*http.Request
	writes   []string
	changes  []string

	// metrics is what the operator exposes to Prometheus.
	metrics *prometheus.Registry

	// refuse, if it is set, is a part of the paths that cannot be written to.
	refuse atomic.Pointer[string]
	// conflict is the same for writes that are answered as ones that came too late, and conflictOnce for the
	// first of them alone.
	conflict, conflictOnce atomic.Pointer[string]
	// panics is the same for writes in whose place the operator panics.
	panics atomic.Pointer[string]
	// preflight is what becomes of the pods of preflights; nothing set: they pass at once.
	preflight atomic.Pointer[corev1.PodStatus]
	// answered, if it is set, is called after each read, before the operator has the answer.
	answered atomic.Pointer[func(*http.Request)]
}

// startOperator makes a namespace and an operator for it, both for one spec.
func startOperator(ctx context.Context, options ...func(*Reconciler)) *operator {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "spec-"}}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
	return startOperatorIn(namespace.Name, options...)
}

// startOperatorIn makes an operator for a namespace, for one spec.
func startOperatorIn(namespace string, options ...func(*Reconciler)) *operator {
	GinkgoHelper()
	return startOperatorAs(operatorUser, namespace, options...)
}

// startOperatorAs makes an operator that acts as a user, for one spec. Options change its reconciler before it runs.
func startOperatorAs(userName, namespace string, options ...func(*Reconciler)) *operator {
	GinkgoHelper()
	o := &operator{namespace: namespace}
	user := rest.CopyConfig(adminConfig)
	user.Impersonate = rest.ImpersonationConfig{UserName: userName}
	user.Wrap(func(next http.RoundTripper) http.RoundTripper { return noteRights{next} })
	user.Wrap(func(next http.RoundTripper) http.RoundTripper { return &recorder{o, next} })
	skip := true
	m, err := manager.New(user, manager.Options{
		Scheme:     scheme,
		Cache:      cacheOptions(namespace),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &skip},
	})
	Expect(err).NotTo(HaveOccurred())
	o.reconciler = &Reconciler{
		Client:  m.GetClient(),
		Live:    m.GetAPIReader(),
		Options: resources.Options{ManagerImage: managerImage},
		Now:     o.now,
	}
	o.metrics = prometheus.NewPedanticRegistry()
	o.metrics.MustRegister(metrics.New(m.Elected(), "v1.2.3", "abcdef", o.reconciler.Collector(m.GetCache())))
	running, stop := context.WithCancel(context.Background())
	Expect(o.reconciler.SetupWithManager(running, m)).To(Succeed())
	for _, option := range options {
		option(o.reconciler)
	}
	done := make(chan error)
	go func() { done <- m.Start(running) }()
	o.stop = sync.OnceFunc(func() {
		stop()
		Eventually(done, stopTimeout).Should(Receive(BeNil()))
	})
	DeferCleanup(o.stop)
	return o
}

// stopTimeout is longer than a manager waits for its runnables.
const stopTimeout = 40 * time.Second

// cacheOptions limits a cache to what this controller needs, in some namespaces or in all.
func cacheOptions(namespaces ...string) cache.Options {
	options := cache.Options{ByObject: CachedObjects()}
	kubetest.DelayCache(&options)
	if len(namespaces) > 0 {
		options.DefaultNamespaces = map[string]cache.Config{}
	}
	for _, namespace := range namespaces {
		options.DefaultNamespaces[namespace] = cache.Config{}
	}
	return options
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
// events: those are sent some time after what they report.
func (o *operator) written() []string {
	o.lock.Lock()
	defer o.lock.Unlock()
	return append([]string(nil), o.writes...)
}

// changed lists the writes so far that have changed something.
func (o *operator) changed() []string {
	o.lock.Lock()
	defer o.lock.Unlock()
	return slices.Clone(o.changes)
}

// asked lists the requests of the operator so far, with its events.
func (o *operator) asked() []*http.Request {
	o.lock.Lock()
	defer o.lock.Unlock()
	return slices.Clone(o.requests)
}

// look does what the operator would if it looked at a Headscale now.
func (o *operator) look(ctx context.Context, name string) (reconcile.Result, error) {
	return o.reconciler.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: o.namespace, Name: name}})
}

// errorsSoFar is how many passes ended with an error, after which the Headscale is looked
// at again with a growing delay, of all operators of this process.
func errorsSoFar() float64 {
	GinkgoHelper()
	families, err := ctrlmetrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		if family.GetName() != "controller_runtime_reconcile_errors_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "controller" && label.GetValue() == "headscale" {
					return metric.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

// conflicts reports whether a write to a path is answered as one that came too late.
func (o *operator) conflicts(path string) bool {
	if part := o.conflict.Load(); part != nil && strings.Contains(path, *part) {
		return true
	}
	part := o.conflictOnce.Load()
	return part != nil && strings.Contains(path, *part) && o.conflictOnce.CompareAndSwap(part, nil)
}

// recorder notes the requests of an operator.
type recorder struct {
	operator *operator
	next     http.RoundTripper
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	r.operator.lock.Lock()
	r.operator.requests = append(r.operator.requests, request)
	r.operator.lock.Unlock()
	path := request.URL.Path
	if request.Method == http.MethodGet || strings.Contains(path, "/leases/") || strings.Contains(path, "/events") {
		response, err := r.next.RoundTrip(request)
		if answered := r.operator.answered.Load(); answered != nil {
			(*answered)(request)
		}
		return response, err
	}
	r.operator.lock.Lock()
	r.operator.writes = append(r.operator.writes, request.Method+" "+path)
	r.operator.lock.Unlock()
	if part := r.operator.refuse.Load(); part != nil && strings.Contains(path, *part) {
		return nil, errors.New("the API server is away")
	}
	if part := r.operator.panics.Load(); part != nil && strings.Contains(path, *part) {
		panic("no writes to " + path + " with password=TOPSECRET")
	}
	if r.operator.conflicts(path) {
		const answer = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409,"message":"the object has been modified"}`
		return &http.Response{
			StatusCode: http.StatusConflict, Status: "409 Conflict", Request: request,
			Header: http.Header{"Content-Type": []string{"application/json"}}, Body: io.NopCloser(strings.NewReader(answer)),
		}, nil
	}
	response, err := r.next.RoundTrip(request)
	if err == nil && response.StatusCode < http.StatusMultipleChoices && !request.URL.Query().Has("dryRun") {
		r.operator.lock.Lock()
		r.operator.changes = append(r.operator.changes, request.Method+" "+path)
		r.operator.lock.Unlock()
		if request.Method == http.MethodPost && strings.HasSuffix(path, "/jobs") {
			r.operator.runPreflight()
		}
	}
	return response, err
}
