package headscale

import (
	"context"
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/metrics"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// Kinds of errors with which a reconcile ends.
const (
	kindConflict  = "conflict"
	kindInvalid   = "invalid"
	kindUpgrade   = "upgrade"
	kindWaiting   = "waiting"
	kindTransient = "transient"
)

// errorKinds are all of them.
var errorKinds = []string{kindConflict, kindInvalid, kindUpgrade, kindWaiting, kindTransient}

// Labels that several series have. Namespace and name are the Headscale's.
const (
	labelNamespace = "namespace"
	labelName      = "name"
	labelKind      = "kind"
)

// conditionGauges are the series that tell whether a condition is true.
var conditionGauges = []struct {
	condition string
	desc      *prometheus.Desc
}{
	{v1beta1.ConditionReady, headscaleDesc("headscale_ready", "Whether the Headscale's condition Ready is true (1) or not (0).", "reason")},
	{v1beta1.ConditionAvailable, headscaleDesc("headscale_available", "Whether the Headscale's condition Available is true (1) or not (0).", "reason")},
	{v1beta1.ConditionAPIKeyReady, headscaleDesc("apikey_ready", "Whether the Headscale's condition APIKeyReady is true (1) or not (0).", "reason")},
}

var (
	infoDesc         = headscaleDesc("headscale_info", "A Headscale: the desired version, and whether its API key is managed. Always 1.", "version", "managed")
	expirationDesc   = headscaleDesc("apikey_expiration_timestamp_seconds", "When the API key in the Secret expires, in seconds since 1970.")
	nextRotationDesc = headscaleDesc("apikey_next_rotation_timestamp_seconds", "When the API key in the Secret is due to be replaced, in seconds since 1970.")
)

// headscaleDesc describes a series that there is for each Headscale.
func headscaleDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("headscale_operator_"+name, help, append([]string{labelNamespace, labelName}, more...), nil)
}

// collector exposes the Headscales to Prometheus.
type collector struct {
	headscales cache.Cache
	errors     *prometheus.CounterVec
}

// Collector returns the collector of what the operator exposes of the Headscales. Their
// state is read from the cache at each scrape, so nothing is left of one that was deleted. It
// must be called before the manager starts, at most once.
func (r *Reconciler) Collector(headscales cache.Cache) prometheus.Collector {
	r.metrics = &collector{
		headscales: headscales,
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headscale_operator_reconcile_errors_total",
			Help: "Reconciles of a Headscale that ended with an error, by its kind.",
		}, []string{labelNamespace, labelName, labelKind}),
	}
	return r.metrics
}

// Describe is for the registry.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	c.errors.Describe(descs)
	for _, gauge := range conditionGauges {
		descs <- gauge.desc
	}
	descs <- infoDesc
	descs <- expirationDesc
	descs <- nextRotationDesc
}

// Collect is called for each scrape. It does not wait for the cache: an operator that has
// just started exposes little, and soon. Where the Headscales cannot be listed, that is an
// invalid metric, which the metrics server logs and counts, and serves everything else.
func (c *collector) Collect(found chan<- prometheus.Metric) {
	c.errors.Collect(found)
	ctx, cancel := context.WithTimeout(context.Background(), metrics.ScrapeTimeout)
	defer cancel()
	informer, err := c.headscales.GetInformer(ctx, &v1beta1.Headscale{}, cache.BlockUntilSynced(false))
	list := &v1beta1.HeadscaleList{}
	if err == nil {
		if !informer.HasSynced() {
			return
		}
		// Nothing below changes what is listed.
		err = c.headscales.List(ctx, list, client.UnsafeDisableDeepCopy)
	}
	if err != nil {
		found <- prometheus.NewInvalidMetric(infoDesc, fmt.Errorf("listing the Headscales for the metrics: %w", err))
		return
	}
	for i := range list.Items {
		// The status of one that is being deleted is not kept up to date.
		if headscale := &list.Items[i]; headscale.DeletionTimestamp.IsZero() {
			expose(headscale, found)
		}
	}
}

// expose exposes what the resource says of a Headscale. What is not known yet has no series.
func expose(headscale *v1beta1.Headscale, found chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		labels = append([]string{headscale.Namespace, headscale.Name}, labels...)
		found <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(infoDesc, 1, headscale.Spec.Version, strconv.FormatBool(headscale.Spec.APIKey.Managed()))
	for _, of := range conditionGauges {
		condition := meta.FindStatusCondition(headscale.Status.Conditions, of.condition)
		switch {
		case condition == nil:
		case condition.Status == metav1.ConditionTrue:
			gauge(of.desc, 1, condition.Reason)
		default:
			gauge(of.desc, 0, condition.Reason)
		}
	}
	key := headscale.Status.APIKey
	if key == nil {
		return
	}
	if key.Expiration != nil {
		gauge(expirationDesc, float64(key.Expiration.Unix()))
	}
	if key.NextRotation != nil {
		gauge(nextRotationDesc, float64(key.NextRotation.Unix()))
	}
}

// count counts how a reconcile ended; nil is a success. A counter that exists from the first
// reconcile on lets the first error be seen as an increase.
func (c *collector) count(headscale *v1beta1.Headscale, failed *status.Failure) {
	if c == nil {
		return
	}
	for _, kind := range errorKinds {
		counter := c.errors.WithLabelValues(headscale.Namespace, headscale.Name, kind)
		if failed != nil && kindOf(failed) == kind {
			counter.Inc()
		}
	}
}

// forget drops what was counted of a Headscale that was deleted.
func (c *collector) forget(headscale types.NamespacedName) {
	if c != nil {
		c.errors.DeletePartialMatch(prometheus.Labels{labelNamespace: headscale.Namespace, labelName: headscale.Name})
	}
}

// kindOf is the kind of error that a failure is counted as.
func kindOf(failed *status.Failure) string {
	switch {
	case failed.Transient != nil:
		return kindTransient
	case failed.Reason == v1beta1.ReasonConflict:
		return kindConflict
	case failed.Reason == v1beta1.ReasonInvalidConfig:
		return kindInvalid
	case failed.Reason == v1beta1.ReasonUpgradeRefused:
		return kindUpgrade
	default:
		return kindWaiting
	}
}
