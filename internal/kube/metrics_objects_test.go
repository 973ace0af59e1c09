package kube_test

import (
	"context"
	"errors"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/kube/metrics"
)

var (
	sizeDesc  = metrics.ObjectDesc("test_size", "How large a ConfigMap is.")
	readyDesc = metrics.ObjectDesc("test_ready", "Whether a ConfigMap is ready.", "reason")
)

// configMaps exposes each ConfigMap's data: a size, and a condition where there is one.
var configMaps = metrics.Objects[*corev1.ConfigMap]{
	Plural: "ConfigMaps", Object: &corev1.ConfigMap{}, List: &corev1.ConfigMapList{},
	Descs: []*prometheus.Desc{sizeDesc, readyDesc},
	Expose: func(object *corev1.ConfigMap, gauge metrics.Gauge) {
		if size, err := strconv.ParseFloat(object.Data["size"], 64); err == nil {
			gauge(sizeDesc, size)
		}
		var condition *metav1.Condition
		if ready, known := object.Data["ready"]; known {
			condition = &metav1.Condition{Status: metav1.ConditionStatus(ready), Reason: "Said"}
		}
		gauge.Condition(readyDesc, condition)
	},
}

// newCache creates a cache of the ConfigMaps of a namespace.
func newCache(namespace string) cache.Cache {
	GinkgoHelper()
	created, err := cache.New(config, cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}})
	Expect(err).NotTo(HaveOccurred())
	return created
}

// startCache starts a cache of the ConfigMaps of a namespace, for one spec.
func startCache(ctx context.Context, namespace string) cache.Cache {
	GinkgoHelper()
	started := newCache(namespace)
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- started.Start(running) }()
	DeferCleanup(func() {
		stop()
		Eventually(ended).Should(Receive(BeNil()))
	})
	_, err := started.GetInformer(ctx, &corev1.ConfigMap{})
	Expect(err).NotTo(HaveOccurred())
	return started
}

// scrape returns the values of what a collector exposes, by their names and labels.
func scrape(g Gomega, collector prometheus.Collector) map[string]float64 {
	registry := prometheus.NewPedanticRegistry()
	g.Expect(registry.Register(collector)).To(Succeed())
	families, err := registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			values[family.GetName()+labelsOf(metric)] = metric.GetGauge().GetValue()
		}
	}
	return values
}

// labelsOf are the labels of a metric, with a space before each.
func labelsOf(metric *dto.Metric) string {
	var text string
	for _, label := range metric.GetLabel() {
		text += " " + label.GetName() + "=" + label.GetValue()
	}
	return text
}

// failingCache fails at a part of a scrape, as no API server does on demand.
type failingCache struct {
	cache.Cache
	informer, list error
}

func (f failingCache) GetInformer(ctx context.Context, object client.Object, options ...cache.InformerGetOption) (cache.Informer, error) {
	if f.informer != nil {
		return nil, f.informer
	}
	return f.Cache.GetInformer(ctx, object, options...)
}

func (f failingCache) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return f.list
}

var _ = Describe("The metrics of a kind's objects", func() {
	It("are those of the objects there are", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		collector := configMaps.Collector(startCache(ctx, namespace))
		of := func(name, size, ready string) *corev1.ConfigMap {
			return &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"size": size, "ready": ready},
			}
		}
		two := of("two", "2", string(metav1.ConditionFalse))
		Expect(admin.Create(ctx, of("one", "1", string(metav1.ConditionTrue)))).To(Succeed())
		Expect(admin.Create(ctx, two)).To(Succeed())
		Expect(admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "of-nothing-known"}})).To(Succeed())
		one := map[string]float64{
			"test_size name=one namespace=" + namespace:                   1,
			"test_ready name=one namespace=" + namespace + " reason=Said": 1,
		}
		both := map[string]float64{
			"test_size name=two namespace=" + namespace:                   2,
			"test_ready name=two namespace=" + namespace + " reason=Said": 0,
		}
		for series, value := range one {
			both[series] = value
		}
		Eventually(scrape).WithArguments(collector).WithContext(ctx).Should(Equal(both))
		Expect(admin.Delete(ctx, two)).To(Succeed())
		Eventually(scrape).WithArguments(collector).WithContext(ctx).Should(Equal(one))
	})

	It("are none, at once, while the cache has not started", func(ctx SpecContext) {
		collector := configMaps.Collector(newCache(newNamespace(ctx)))
		// A busy machine may be slow once or twice; who waits for the cache is slow each time.
		Eventually(func(g Gomega) time.Duration {
			begun := time.Now()
			g.Expect(scrape(g, collector)).To(BeEmpty())
			return time.Since(begun)
		}).WithContext(ctx).Should(BeNumerically("<", metrics.ScrapeTimeout/2))
	}, SpecTimeout(2*time.Minute))

	It("are an error where the objects cannot be listed", func(ctx SpecContext) {
		working := startCache(ctx, newNamespace(ctx))
		Expect(working.WaitForCacheSync(ctx)).To(BeTrue())
		away := errors.New("away")
		for name, failing := range map[string]failingCache{"the list": {working, nil, away}, "the informer": {working, away, nil}} {
			registry := prometheus.NewPedanticRegistry()
			Expect(registry.Register(configMaps.Collector(failing))).To(Succeed())
			_, err := registry.Gather()
			Expect(err).To(MatchError(ContainSubstring("listing the ConfigMaps for the metrics: away")), name)
		}
	})
})
