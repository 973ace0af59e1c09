package headscale

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"

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

// Labels of the counter of errors. Namespace and name are the Headscale's.
const (
	labelNamespace = "namespace"
	labelName      = "name"
	labelKind      = "kind"
)

// conditionGauges are the series that say whether a condition is true.
var conditionGauges = []struct {
	condition string
	desc      *prometheus.Desc
}{
	{v1beta1.ConditionReady, headscaleDesc("headscale_ready", "Whether the Headscale's condition Ready is true (1) or not (0).", "reason")},
	{v1beta1.ConditionAvailable, headscaleDesc("headscale_available", "Whether the Headscale's condition Available is true (1) or not (0).", "reason")},
	{v1beta1.ConditionAPIKeyReady, headscaleDesc("apikey_ready", "Whether the Headscale's condition APIKeyReady is true (1) or not (0).", "reason")},
	{v1beta1.ConditionBackedUp, headscaleDesc("headscale_backed_up", "Whether the Headscale's condition BackedUp is true (1) or not (0).", "reason")},
}

var (
	infoDesc         = headscaleDesc("headscale_info", "A Headscale: the desired version, and whether its API key is managed. Always 1.", "version", "managed")
	expirationDesc   = headscaleDesc("apikey_expiration_timestamp_seconds", "When the API key in the Secret expires, in seconds since 1970.")
	lastSyncDesc     = headscaleDesc("backup_last_sync_timestamp_seconds", "When the backup of the Headscale's database was last known to be complete, or to grow, in seconds since 1970.")
	verifiedDesc     = headscaleDesc("backup_verified_timestamp_seconds", "When the last verification of the backup that passed began, in seconds since 1970.")
	pendingDesc      = headscaleDesc("backup_pending_changes", "How many changes of the Headscale's database are known not to be in its backup.")
	nextRotationDesc = headscaleDesc("apikey_next_rotation_timestamp_seconds", "When the API key in the Secret is due to be replaced, in seconds since 1970.")
)

// headscaleDesc describes a series that there is for each Headscale.
func headscaleDesc(name, help string, more ...string) *prometheus.Desc {
	return metrics.ObjectDesc("headscale_operator_"+name, help, more...)
}

// exposed is what the operator exposes of the Headscales.
func (r *Reconciler) exposed() *metrics.Objects[*v1beta1.Headscale] {
	return &metrics.Objects[*v1beta1.Headscale]{
		Plural: "Headscales", Object: &v1beta1.Headscale{}, List: &v1beta1.HeadscaleList{},
		Descs: allDescs(), Expose: r.expose,
	}
}

// allDescs describe all series that there are for each Headscale.
func allDescs() []*prometheus.Desc {
	descs := []*prometheus.Desc{infoDesc, expirationDesc, nextRotationDesc, lastSyncDesc, verifiedDesc, pendingDesc}
	for _, gauge := range conditionGauges {
		descs = append(descs, gauge.desc)
	}
	return descs
}

// collector exposes the Headscales to Prometheus, and counts errors.
type collector struct {
	headscales prometheus.Collector
	errors     *prometheus.CounterVec
}

// Collector returns the collector of what the operator exposes of the Headscales in a cache. It
// must be called before the manager starts, at most once.
func (r *Reconciler) Collector(headscales cache.Cache) prometheus.Collector {
	r.metrics = &collector{
		headscales: r.exposed().Collector(headscales),
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
	c.headscales.Describe(descs)
}

// Collect is called for each scrape.
func (c *collector) Collect(found chan<- prometheus.Metric) {
	c.errors.Collect(found)
	c.headscales.Collect(found)
}

// expose exposes what the resource says of a Headscale. What is not known yet has no series.
func (r *Reconciler) expose(headscale *v1beta1.Headscale, gauge metrics.Gauge) {
	if !headscale.DeletionTimestamp.IsZero() {
		return // its status is not kept up to date
	}
	gauge(infoDesc, 1, headscale.Spec.Version, strconv.FormatBool(headscale.Spec.APIKey.Managed()))
	for _, of := range conditionGauges {
		gauge.Condition(of.desc, meta.FindStatusCondition(headscale.Status.Conditions, of.condition))
	}
	r.exposeBackup(headscale, gauge)
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
