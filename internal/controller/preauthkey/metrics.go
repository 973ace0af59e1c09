package preauthkey

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/metrics"
)

var (
	readyDesc = metrics.ObjectDesc("headscale_operator_preauthkey_ready",
		"Whether the HeadscalePreAuthKey's condition Ready is true (1) or not (0).", "reason")
	expirationDesc = metrics.ObjectDesc("headscale_operator_preauthkey_expiration_timestamp_seconds",
		"When the pre-auth key in the Secret expires; absent for one that was used up or has expired and is not replaced.")
	usedDesc = metrics.ObjectDesc("headscale_operator_preauthkey_used", "How many keys of the HeadscalePreAuthKey were used up.")
)

// exposed is what the operator exposes of the HeadscalePreAuthKeys.
var exposed = metrics.Objects[*v1beta1.HeadscalePreAuthKey]{
	Plural: "HeadscalePreAuthKeys", Object: &v1beta1.HeadscalePreAuthKey{}, List: &v1beta1.HeadscalePreAuthKeyList{},
	Descs: []*prometheus.Desc{readyDesc, expirationDesc, usedDesc}, Expose: expose,
}

// Collector returns the collector of what the operator exposes of the HeadscalePreAuthKeys in a
// cache.
func (r *Reconciler) Collector(keys cache.Cache) prometheus.Collector { return exposed.Collector(keys) }

// expose exposes what the resource says of a key. What is not known yet has no series.
func expose(key *v1beta1.HeadscalePreAuthKey, gauge metrics.Gauge) {
	ready := meta.FindStatusCondition(key.Status.Conditions, v1beta1.ConditionReady)
	if ready == nil {
		return
	}
	gauge.Condition(readyDesc, ready)
	gauge(usedDesc, float64(key.Status.Used))
	if key.Status.Expiration != nil && !key.IsOver() {
		gauge(expirationDesc, float64(key.Status.Expiration.Unix()))
	}
}
