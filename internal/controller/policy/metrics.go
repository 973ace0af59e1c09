package policy

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/metrics"
)

var (
	readyDesc   = metrics.ObjectDesc("headscale_operator_policy_ready", "Whether the HeadscalePolicy's condition Ready is true (1) or not (0).", "reason")
	appliedDesc = metrics.ObjectDesc("headscale_operator_policy_applied_timestamp_seconds",
		"When Headscale was first known to have the HeadscalePolicy as it was accepted last.")
	correctionsDesc = metrics.ObjectDesc("headscale_operator_policy_corrections", "How many changes of the policy by hand were reverted in a row.")
)

// exposed is what the operator exposes of the HeadscalePolicies.
var exposed = metrics.Objects[*v1beta1.HeadscalePolicy]{
	Plural: "HeadscalePolicies", Object: &v1beta1.HeadscalePolicy{}, List: &v1beta1.HeadscalePolicyList{},
	Descs: []*prometheus.Desc{readyDesc, appliedDesc, correctionsDesc}, Expose: expose,
}

// Collector returns the collector of what the operator exposes of the HeadscalePolicies in a cache.
func (r *Reconciler) Collector(policies cache.Cache) prometheus.Collector {
	return exposed.Collector(policies)
}

// expose exposes what the resource says of a policy. What is not known yet has no series.
func expose(policy *v1beta1.HeadscalePolicy, gauge metrics.Gauge) {
	ready := meta.FindStatusCondition(policy.Status.Conditions, v1beta1.ConditionReady)
	if ready == nil {
		return
	}
	gauge.Condition(readyDesc, ready)
	gauge(correctionsDesc, float64(policy.Status.Corrections))
	if at := policy.Status.AppliedAt; at != nil {
		gauge(appliedDesc, float64(at.Unix()))
	}
}
