package headscale

import (
	"context"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// scrapeTimeout ends a scrape that hangs. It is less than the ten seconds after which
// Prometheus gives up by default.
const scrapeTimeout = 5 * time.Second

// Kinds of errors with which a pass ends.
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
	infoDesc         = headscaleDesc("headscale_info", "A Headscale: the version that was asked for, and whether its API key is managed. Always 1.", "version", "managed")
	expirationDesc   = headscaleDesc("apikey_expiration_timestamp_seconds", "When the API key in the Secret expires, in seconds since 1970.")
	nextRotationDesc = headscaleDesc("apikey_next_rotation_timestamp_seconds", "When the API key in the Secret is due to be replaced, in seconds since 1970.")
)

// headscaleDesc describes a series that there is for each Headscale.
func headscaleDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("headscale_operator_"+name, help, append([]string{labelNamespace, labelName}, more...), nil)
}

// metrics is what the operator tells Prometheus.
type metrics struct {
	elected    <-chan struct{}
	headscales cache.Cache
	build      prometheus.Metric
	errors     *prometheus.CounterVec
}

// Metrics makes the collector of what the operator tells Prometheus of itself and of the
// Headscales. What it tells of a Headscale is read from the manager's cache when it is
// asked, so nothing is left of one that was deleted. Only the leader tells it: it is the
// one that knows, and two operators that tell the same would be counted twice. It must
// be called before the manager starts, at most once.
func (r *HeadscaleReconciler) Metrics(m manager.Manager, version, commit string) prometheus.Collector {
	build := prometheus.NewDesc("headscale_operator_build_info", "The operator that runs. Always 1.", []string{"version", "commit", "go_version"}, nil)
	r.metrics = &metrics{
		elected:    m.Elected(),
		headscales: m.GetCache(),
		build:      prometheus.MustNewConstMetric(build, prometheus.GaugeValue, 1, version, commit, runtime.Version()),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headscale_operator_reconcile_errors_total",
			Help: "Passes over a Headscale that ended with an error, by its kind.",
		}, []string{labelNamespace, labelName, labelKind}),
	}
	return r.metrics
}

// Describe is for the registry.
func (m *metrics) Describe(descs chan<- *prometheus.Desc) {
	descs <- m.build.Desc()
	m.errors.Describe(descs)
	for _, gauge := range conditionGauges {
		descs <- gauge.desc
	}
	descs <- infoDesc
	descs <- expirationDesc
	descs <- nextRotationDesc
}

// Collect is called for each scrape. It does not wait for the cache: an operator that has
// just started says little, and soon.
func (m *metrics) Collect(found chan<- prometheus.Metric) {
	found <- m.build
	m.errors.Collect(found)
	select {
	case <-m.elected:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	informer, err := m.headscales.GetInformer(ctx, &v1beta1.Headscale{}, cache.BlockUntilSynced(false))
	if err != nil || !informer.HasSynced() {
		return
	}
	list := &v1beta1.HeadscaleList{}
	// Nothing below changes what is listed.
	if err := m.headscales.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		found <- prometheus.NewInvalidMetric(infoDesc, err)
		return
	}
	for i := range list.Items {
		// The status of one that is being deleted is not kept up any more.
		if headscale := &list.Items[i]; headscale.DeletionTimestamp.IsZero() {
			expose(headscale, found)
		}
	}
}

// expose tells what the resource says of a Headscale. Of what is not known yet it tells
// nothing.
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

// count notes how a pass ended; nil is a good end. A counter that there is from the first
// pass on lets the first error be seen as an increase.
func (m *metrics) count(headscale *v1beta1.Headscale, failed *failure) {
	if m == nil {
		return
	}
	for _, kind := range errorKinds {
		counter := m.errors.WithLabelValues(headscale.Namespace, headscale.Name, kind)
		if failed != nil && kindOf(failed) == kind {
			counter.Inc()
		}
	}
}

// forget drops what was counted of a Headscale that is gone.
func (m *metrics) forget(headscale types.NamespacedName) {
	if m != nil {
		m.errors.DeletePartialMatch(prometheus.Labels{labelNamespace: headscale.Namespace, labelName: headscale.Name})
	}
}

// kindOf is the kind of error that a failure is counted as.
func kindOf(failed *failure) string {
	switch {
	case failed.transient != nil:
		return kindTransient
	case failed.reason == v1beta1.ReasonConflict:
		return kindConflict
	case failed.reason == v1beta1.ReasonInvalidConfig:
		return kindInvalid
	case failed.reason == v1beta1.ReasonUpgradeRefused:
		return kindUpgrade
	default:
		return kindWaiting
	}
}
