package user

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/metrics"
)

var readyDesc = metrics.ObjectDesc("headscale_operator_user_ready", "Whether the HeadscaleUser's condition Ready is true (1) or not (0).", "reason")

// exposed is what the operator exposes of the HeadscaleUsers.
var exposed = metrics.Objects[*v1beta1.HeadscaleUser]{
	Plural: "HeadscaleUsers", Object: &v1beta1.HeadscaleUser{}, List: &v1beta1.HeadscaleUserList{},
	Descs: []*prometheus.Desc{readyDesc}, Expose: expose,
}

// Collector returns the collector of what the operator exposes of the HeadscaleUsers in a cache.
func (r *Reconciler) Collector(users cache.Cache) prometheus.Collector {
	return exposed.Collector(users)
}

// expose exposes what the resource says of a user.
func expose(user *v1beta1.HeadscaleUser, gauge metrics.Gauge) {
	gauge.Condition(readyDesc, meta.FindStatusCondition(user.Status.Conditions, v1beta1.ConditionReady))
}
