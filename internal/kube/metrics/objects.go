package metrics

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ObjectDesc describes a series of each object of a kind. Its labels are the object's namespace
// and name, and then more.
func ObjectDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"namespace", "name"}, more...), nil)
}

// Objects is what is exposed of the objects of a kind, O, such as *corev1.Pod.
type Objects[O client.Object] struct {
	// Plural is what an error calls the objects.
	Plural string
	// Object and List are an empty object of the kind, and an empty list.
	Object O
	List   client.ObjectList
	// Descs describe all series. An error has the first one's name.
	Descs []*prometheus.Desc
	// Expose exposes one object, which it must not change. What is not known yet has no series.
	Expose func(object O, gauge Gauge)
}

// Collector returns the collector of the objects in a cache. It reads them at each scrape, so
// nothing is left of one that was deleted.
func (o *Objects[O]) Collector(objects cache.Cache) prometheus.Collector {
	return &objectCollector[O]{of: o, cache: objects}
}

// Gauge exposes a value of an object. The labels follow the object's namespace and name.
type Gauge func(desc *prometheus.Desc, value float64, labels ...string)

// Condition exposes whether a condition is true (1) or not (0), with its reason as the only
// label; nothing where the condition is nil.
func (g Gauge) Condition(desc *prometheus.Desc, condition *metav1.Condition) {
	switch {
	case condition == nil:
	case condition.Status == metav1.ConditionTrue:
		g(desc, 1, condition.Reason)
	default:
		g(desc, 0, condition.Reason)
	}
}

// objectCollector exposes the objects of a kind that are in a cache.
type objectCollector[O client.Object] struct {
	of    *Objects[O]
	cache cache.Cache
}

// Describe is for the registry.
func (c *objectCollector[O]) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range c.of.Descs {
		descs <- desc
	}
}

// Collect is called for each scrape. It does not wait for the cache: an operator that has just
// started answers at once, with few series. If the objects cannot be listed, it returns an invalid
// metric: the metrics server logs and counts it, and serves everything else.
func (c *objectCollector[O]) Collect(found chan<- prometheus.Metric) {
	if err := c.expose(found); err != nil {
		found <- prometheus.NewInvalidMetric(c.of.Descs[0], fmt.Errorf("listing the %s for the metrics: %w", c.of.Plural, err))
	}
}

// expose exposes all objects, or none while the cache is not synced.
func (c *objectCollector[O]) expose(found chan<- prometheus.Metric) error {
	ctx, cancel := context.WithTimeout(context.Background(), ScrapeTimeout)
	defer cancel()
	informer, err := c.cache.GetInformer(ctx, c.of.Object, cache.BlockUntilSynced(false))
	if err != nil || !informer.HasSynced() {
		return err
	}
	list, _ := c.of.List.DeepCopyObject().(client.ObjectList) // a copy has the type of the original
	if err := c.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	return meta.EachListItem(list, func(item runtime.Object) error {
		object, _ := item.(O) // a list holds objects of its kind
		c.of.Expose(object, gaugeOf(object, found))
		return nil
	})
}

// gaugeOf exposes values of an object.
func gaugeOf(object client.Object, found chan<- prometheus.Metric) Gauge {
	return func(desc *prometheus.Desc, value float64, labels ...string) {
		labels = append([]string{object.GetNamespace(), object.GetName()}, labels...)
		found <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
}
