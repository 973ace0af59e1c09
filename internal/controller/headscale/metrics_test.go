package headscale

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/kube/metrics"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// buildSeries is what every operator of these tests says of itself.
var buildSeries = fmt.Sprintf(`headscale_operator_build_info{commit="abcdef",go_version=%q,version="v1.2.3"}`, runtime.Version())

// seriesOf reads what a registry has, as the exposition format writes it.
func seriesOf(registry prometheus.Gatherer) func(Gomega) map[string]float64 {
	return func(g Gomega) map[string]float64 {
		families, err := registry.Gather()
		g.Expect(err).NotTo(HaveOccurred())
		found := map[string]float64{}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				var labels []string
				for _, label := range metric.GetLabel() {
					labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
				}
				found[fmt.Sprintf("%s{%s}", family.GetName(), strings.Join(labels, ","))] = valueOf(metric)
			}
		}
		return found
	}
}

// valueOf is the value of a gauge or a counter.
func valueOf(metric *dto.Metric) float64 {
	if metric.GetCounter() != nil {
		return metric.GetCounter().GetValue()
	}
	return metric.GetGauge().GetValue()
}

// series is the name of a series of this operator's Headscale of that name, with further
// labels.
func (o *operator) series(name, headscale string, more ...string) string {
	labels := append([]string{fmt.Sprintf("name=%q", headscale), fmt.Sprintf("namespace=%q", o.namespace)}, more...)
	slices.Sort(labels)
	return fmt.Sprintf("headscale_operator_%s{%s}", name, strings.Join(labels, ","))
}

// ready is the name of the series for the condition Ready with a reason.
func (o *operator) ready(reason string) string {
	return o.series("headscale_ready", "headscale", fmt.Sprintf("reason=%q", reason))
}

// errors is the name of the series that counts errors of a kind.
func (o *operator) errors(kind string) string {
	return o.series("reconcile_errors_total", "headscale", fmt.Sprintf("kind=%q", kind))
}

var _ = Describe("The metrics", func() {
	It("follow a Headscale from its creation to its end", func(ctx context.Context) {
		o := startOperator(ctx)
		metrics := seriesOf(o.metrics)
		Expect(metrics(NewGomega(Fail))).To(Equal(map[string]float64{buildSeries: 1}))

		By("starting")
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		info := o.series("headscale_info", "headscale", `managed="true"`, `version="v0.29.3"`)
		Eventually(metrics).WithContext(ctx).Should(And(
			HaveKeyWithValue(o.ready(v1beta1.ReasonProgressing), 0.0),
			HaveKeyWithValue(o.series("headscale_available", "headscale", `reason="Progressing"`), 0.0),
			HaveKeyWithValue(o.series("apikey_ready", "headscale", `reason="KeyPending"`), 0.0),
			HaveKeyWithValue(o.errors(kindConflict), 0.0),
			Not(HaveKey(ContainSubstring("timestamp_seconds"))),
		))

		By("the pod running and the key being stored")
		runPod(ctx, o.namespace, "headscale", 1)
		expiration := o.time().Add(v1beta1.DefaultExpiration).Truncate(time.Second)
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", expiration))).To(Succeed())
		Eventually(metrics).WithContext(ctx).Should(Equal(map[string]float64{
			buildSeries:                  1,
			info:                         1,
			o.ready(v1beta1.ReasonReady): 1,
			o.series("headscale_available", "headscale", `reason="Available"`): 1,
			o.series("apikey_ready", "headscale", `reason="KeyValid"`):         1,
			o.series("apikey_expiration_timestamp_seconds", "headscale"):       float64(expiration.Unix()),
			o.series("apikey_next_rotation_timestamp_seconds", "headscale"):    float64(expiration.Add(-1920 * time.Hour).Unix()),
			o.errors(kindConflict):  0,
			o.errors(kindInvalid):   0,
			o.errors(kindTransient): 0,
			o.errors(kindUpgrade):   0,
			o.errors(kindWaiting):   0,
		}))

		By("nobody looking after the key any more")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.4, api_key: {auto_manage: false}}}`)).To(Succeed())
		Eventually(metrics).WithContext(ctx).Should(And(
			Not(HaveKey(info)),
			HaveKeyWithValue(And(ContainSubstring("headscale_info"), ContainSubstring(`managed="false"`), ContainSubstring(`version="v0.29.4"`)), 1.0),
			HaveKeyWithValue(o.series("apikey_ready", "headscale", `reason="NotManaged"`), 1.0),
			Not(HaveKey(ContainSubstring("timestamp_seconds"))),
		))

		By("the Headscale being deleted")
		Expect(admin.Delete(ctx, get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)))).To(Succeed())
		Eventually(metrics).WithContext(ctx).Should(Equal(map[string]float64{buildSeries: 1}))
	})

	It("say nothing of a Headscale that is being deleted", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(seriesOf(o.metrics)).WithContext(ctx).Should(HaveKey(o.errors(kindWaiting)))
		Expect(patch(ctx, o.namespace, "headscale", `{metadata: {finalizers: ["example.com/wait"]}}`)).To(Succeed())
		Expect(admin.Delete(ctx, get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)))).To(Succeed())
		Eventually(seriesOf(o.metrics)).WithContext(ctx).Should(Equal(map[string]float64{buildSeries: 1}))
		Expect(patch(ctx, o.namespace, "headscale", `{metadata: {finalizers: null}}`)).To(Succeed())
	})

	It("count what goes wrong, by its kind", func(ctx context.Context) {
		o := startOperator(ctx)
		metrics := seriesOf(o.metrics)
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale"}}
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(metrics).WithContext(ctx).Should(And(
			HaveKeyWithValue(o.errors(kindConflict), BeNumerically(">=", 1)), HaveKeyWithValue(o.ready(v1beta1.ReasonConflict), 0.0)))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {unix_socket: /var/lib/headscale/headscale.sock}}}`)).To(Succeed())
		Eventually(metrics).WithContext(ctx).Should(And(
			HaveKeyWithValue(o.errors(kindInvalid), BeNumerically(">=", 1)), HaveKeyWithValue(o.ready(v1beta1.ReasonInvalidConfig), 0.0)))
		Expect(admin.Delete(ctx, foreign)).To(Succeed())

		o.refuse.Store(new("/statefulsets/"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {unix_socket: null}}}`)).To(Succeed())
		Eventually(metrics).WithContext(ctx).Should(And(
			HaveKeyWithValue(o.errors(kindTransient), BeNumerically(">=", 1)), HaveKeyWithValue(o.ready(v1beta1.ReasonReconcileFailed), 0.0)))
		o.refuse.Store(nil)
		Eventually(metrics).WithContext(ctx).Should(HaveKeyWithValue(o.ready(v1beta1.ReasonProgressing), 0.0))

		By("another Headscale having counters of its own")
		Expect(create(ctx, o.namespace, strings.Replace(shortest, "name: headscale", "name: other", 1)+"  api_key: {secret_name: other}\n")).To(Succeed())
		Eventually(metrics).WithContext(ctx).Should(HaveKeyWithValue(o.series("reconcile_errors_total", "other", `kind="conflict"`), 0.0))
		Expect(metrics(NewGomega(Fail))).To(HaveKeyWithValue(o.errors(kindConflict), BeNumerically(">=", 1)))
	})

	It("count a status that cannot be written", func(ctx context.Context) {
		o := startOperator(ctx)
		o.refuse.Store(new("/status"))
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(seriesOf(o.metrics)).WithContext(ctx).Should(HaveKeyWithValue(o.errors(kindTransient), BeNumerically(">=", 1)))
		o.refuse.Store(nil)
	})

	It("pass Prometheus' linter", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(time.Hour)))).To(Succeed())
		Eventually(seriesOf(o.metrics)).WithContext(ctx).Should(HaveKeyWithValue(ContainSubstring(`reason="KeyOverdue"`), 1.0))
		families, err := o.metrics.Gather()
		Expect(err).NotTo(HaveOccurred())
		Expect(families).To(HaveLen(8))
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		Expect(err).NotTo(HaveOccurred())
		Expect(problems).To(BeEmpty())
	})

	It("report Headscales from the leader alone", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(seriesOf(o.metrics)).WithContext(ctx).Should(HaveKey(o.ready(v1beta1.ReasonProgressing)))

		By("a second operator waiting for the first")
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "leader"}, Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("first"), LeaseDurationSeconds: new(int32(3600)), RenewTime: new(metav1.NowMicro()),
		}}
		Expect(admin.Create(ctx, lease)).To(Succeed())
		follower := startFollower(o.namespace, lease.Name)
		Consistently(seriesOf(follower)).WithContext(ctx).WithTimeout(time.Second).Should(Equal(map[string]float64{buildSeries: 1}))

		By("the first going")
		o.stop()
		Expect(admin.Patch(ctx, lease, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"holderIdentity":""}}`)))).To(Succeed())
		Eventually(seriesOf(follower)).WithContext(ctx).Should(HaveKey(o.ready(v1beta1.ReasonProgressing)))
	})

	It("are the rest, and an error, where the Headscales cannot be listed", func(ctx context.Context) {
		elected := make(chan struct{})
		close(elected)
		options := cacheOptions()
		options.Scheme = scheme
		working, err := cache.New(adminConfig, options)
		Expect(err).NotTo(HaveOccurred())
		running, stop := context.WithCancel(context.Background())
		DeferCleanup(stop)
		go func() { _ = working.Start(running) }()
		_, err = working.GetInformer(ctx, &v1beta1.Headscale{})
		Expect(err).NotTo(HaveOccurred())
		Expect(working.WaitForCacheSync(ctx)).To(BeTrue())
		away := errors.New("away")
		for name, broken := range map[string]brokenCache{"the list": {working, nil, away}, "the informer": {working, away, nil}} {
			r := &Reconciler{}
			registry := prometheus.NewPedanticRegistry()
			registry.MustRegister(metrics.New(elected, "v1.2.3", "abcdef", r.Collector(broken)))
			r.metrics.count(&v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: "vpn", Name: "headscale"}}, nil)
			families, err := registry.Gather()
			Expect(err).To(MatchError(ContainSubstring("listing the Headscales for the metrics: away")), name)
			Expect(families).To(ConsistOf(HaveField("GetName()", "headscale_operator_build_info"),
				HaveField("GetName()", "headscale_operator_reconcile_errors_total")), name)
		}
	})

	It("do not wait for a cache that has not started", func(ctx context.Context) {
		elected := make(chan struct{})
		close(elected)
		for name, namespaces := range map[string][]string{"all namespaces": nil, "two namespaces": {"a", "b"}} {
			options := cacheOptions(namespaces...)
			options.Scheme = scheme
			unstarted, err := cache.New(adminConfig, options)
			Expect(err).NotTo(HaveOccurred())
			r := &Reconciler{}
			registry := prometheus.NewPedanticRegistry()
			registry.MustRegister(metrics.New(elected, "v1.2.3", "abcdef", r.Collector(unstarted)))
			done := make(chan map[string]float64)
			go func() {
				defer GinkgoRecover()
				done <- seriesOf(registry)(NewGomega(Fail))
			}()
			Eventually(done).WithContext(ctx).WithTimeout(metrics.ScrapeTimeout-500*time.Millisecond).Should(Receive(Equal(map[string]float64{buildSeries: 1})), name)
		}
	})
})

// brokenCache is a cache that fails at a part of a scrape, as no API server has it do when asked.
type brokenCache struct {
	cache.Cache
	informer, list error
}

func (b brokenCache) GetInformer(ctx context.Context, object client.Object, options ...cache.InformerGetOption) (cache.Informer, error) {
	if b.informer != nil {
		return nil, b.informer
	}
	return b.Cache.GetInformer(ctx, object, options...)
}

func (b brokenCache) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return b.list
}

// startFollower starts an operator for a namespace that waits for a lease in it, for one
// spec. It returns what that operator exposes to Prometheus.
func startFollower(namespace, lease string) *prometheus.Registry {
	GinkgoHelper()
	m, err := manager.New(adminConfig, manager.Options{
		Scheme: scheme, Cache: cacheOptions(namespace), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller:     config.Controller{SkipNameValidation: new(true)},
		LeaderElection: true, LeaderElectionID: lease, LeaderElectionNamespace: namespace,
		LeaseDuration: new(2 * time.Second), RenewDeadline: new(time.Second), RetryPeriod: new(100 * time.Millisecond),
	})
	Expect(err).NotTo(HaveOccurred())
	reconciler := &Reconciler{Client: m.GetClient(), Live: m.GetAPIReader(), Now: time.Now}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.New(m.Elected(), "v1.2.3", "abcdef", reconciler.Collector(m.GetCache())))
	running, stop := context.WithCancel(context.Background())
	Expect(reconciler.SetupWithManager(running, m)).To(Succeed())
	done := make(chan error)
	go func() { done <- m.Start(running) }()
	DeferCleanup(func() {
		stop()
		Eventually(done, stopTimeout).Should(Receive())
	})
	return registry
}

func TestKindOf(t *testing.T) {
	g := NewWithT(t)
	kind := schema.GroupKind{Kind: "StatefulSet"}
	terminating := apierrors.NewForbidden(schema.GroupResource{}, "headscale", errors.New("it is being deleted"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for want, all := range map[string][]error{
		kindUpgrade:   {&resources.UpgradeError{}},
		kindConflict:  {&apply.ForeignError{Owner: &v1beta1.Headscale{}, Objects: []string{"Service headscale"}}, errors.Join(&status.ConflictError{}, &status.WaitError{})},
		kindInvalid:   {apierrors.NewInvalid(kind, "headscale", field.ErrorList{field.Required(field.NewPath("spec"), "")})},
		kindWaiting:   {&status.WaitError{Because: v1beta1.ReasonVolumeWaiting}, terminating},
		kindTransient: {errors.New("away"), errors.Join(&status.ConflictError{}, errors.New("away"))},
	} {
		for _, err := range all {
			g.Expect(kindOf(status.Classify(err))).To(Equal(want), err.Error())
		}
	}
	g.Expect(errorKinds).To(ConsistOf(kindConflict, kindInvalid, kindUpgrade, kindWaiting, kindTransient))
}

// The reason is a label, of which there must be few: every reason that this package gives a
// condition is a constant of the API, or was one where it is taken from.
func TestReasonsAreConstants(t *testing.T) {
	g := NewWithT(t)
	var reasons []string
	for _, file := range sources(g) {
		ast.Inspect(file, func(node ast.Node) bool {
			if reason := reasonIn(node); reason != "" {
				reasons = append(reasons, reason)
			}
			return true
		})
	}
	g.Expect(len(reasons)).To(BeNumerically(">", 40))
	g.Expect(reasons).To(HaveEach(Or(MatchRegexp(`^v1beta1\.Reason[A-Z]`), HaveSuffix(".Reason"), Equal("reason"))))
}

// reasonIn is the reason that a call or a literal gives a condition, as it is written, or "".
func reasonIn(node ast.Node) string {
	switch node := node.(type) {
	case *ast.CallExpr:
		if slices.Contains([]string{"status.True", "status.False", "failing"}, types.ExprString(node.Fun)) {
			return types.ExprString(node.Args[0])
		}
	case *ast.KeyValueExpr:
		if key := types.ExprString(node.Key); key == "Because" {
			return types.ExprString(node.Value)
		}
	case *ast.CompositeLit:
		if len(node.Elts) == 0 || types.ExprString(node.Type) != "status.Condition" {
			return ""
		}
		for _, element := range node.Elts {
			if pair, ok := element.(*ast.KeyValueExpr); ok && types.ExprString(pair.Key) == "Reason" {
				return types.ExprString(pair.Value)
			}
		}
		return "a condition without a reason"
	}
	return ""
}

// sources are the files of this package without its tests.
func sources(g Gomega) []*ast.File {
	names, err := filepath.Glob("*.go")
	g.Expect(err).NotTo(HaveOccurred())
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		g.Expect(err).NotTo(HaveOccurred())
		files = append(files, file)
	}
	return files
}
