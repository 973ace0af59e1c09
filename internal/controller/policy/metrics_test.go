package policy

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func TestExpose(t *testing.T) {
	at := metav1.NewTime(time.Unix(1_800_000_000, 0))
	ready := func(status metav1.ConditionStatus, reason string) []metav1.Condition {
		return []metav1.Condition{{Type: v1beta1.ConditionReady, Status: status, Reason: reason}}
	}
	for name, test := range map[string]struct {
		status v1beta1.HeadscalePolicyStatus
		reason string
		want   map[*prometheus.Desc]float64
	}{
		"nothing is known yet": {want: map[*prometheus.Desc]float64{}},
		"one that is in force, and was reverted": {
			status: v1beta1.HeadscalePolicyStatus{Conditions: ready(metav1.ConditionTrue, v1beta1.ReasonReady), AppliedAt: &at, Corrections: 2},
			reason: v1beta1.ReasonReady,
			want:   map[*prometheus.Desc]float64{readyDesc: 1, correctionsDesc: 2, appliedDesc: 1_800_000_000},
		},
		"one that is refused": {
			status: v1beta1.HeadscalePolicyStatus{Conditions: ready(metav1.ConditionFalse, v1beta1.ReasonRefused)},
			reason: v1beta1.ReasonRefused,
			want:   map[*prometheus.Desc]float64{readyDesc: 0, correctionsDesc: 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, reason := map[*prometheus.Desc]float64{}, ""
			expose(&v1beta1.HeadscalePolicy{Status: test.status}, func(desc *prometheus.Desc, value float64, labels ...string) {
				got[desc] = value
				if desc == readyDesc {
					reason = labels[0]
				}
			})
			g.Expect(got).To(Equal(test.want))
			g.Expect(reason).To(Equal(test.reason))
		})
	}
}
