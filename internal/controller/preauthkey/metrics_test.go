package preauthkey

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func TestExpose(t *testing.T) {
	expires := metav1.NewTime(time.Unix(1_800_000_000, 0))
	ready := func(status metav1.ConditionStatus, reason string) []metav1.Condition {
		return []metav1.Condition{{Type: v1beta1.ConditionReady, Status: status, Reason: reason}}
	}
	for name, test := range map[string]struct {
		status v1beta1.HeadscalePreAuthKeyStatus
		spec   v1beta1.HeadscalePreAuthKeySpec
		want   map[*prometheus.Desc]float64
	}{
		"nothing is known yet": {want: map[*prometheus.Desc]float64{}},
		"a key that works": {
			status: v1beta1.HeadscalePreAuthKeyStatus{Conditions: ready(metav1.ConditionTrue, v1beta1.ReasonReady), Used: 2, Expiration: &expires},
			want:   map[*prometheus.Desc]float64{readyDesc: 1, usedDesc: 2, expirationDesc: 1_800_000_000},
		},
		"a key that is used up, and not to be replaced": {
			status: v1beta1.HeadscalePreAuthKeyStatus{Conditions: ready(metav1.ConditionTrue, v1beta1.ReasonUsed), Used: 1, Expiration: &expires, Over: true},
			spec:   v1beta1.HeadscalePreAuthKeySpec{Reissue: v1beta1.ReissueNever},
			want:   map[*prometheus.Desc]float64{readyDesc: 1, usedDesc: 1},
		},
		"one whose Headscale was stopped after that": {
			status: v1beta1.HeadscalePreAuthKeyStatus{Conditions: ready(metav1.ConditionFalse, v1beta1.ReasonScaledToZero), Used: 1, Expiration: &expires, Over: true},
			spec:   v1beta1.HeadscalePreAuthKeySpec{Reissue: v1beta1.ReissueNever},
			want:   map[*prometheus.Desc]float64{readyDesc: 0, usedDesc: 1},
		},
		"one that is to be replaced now, and its Headscale was stopped": {
			status: v1beta1.HeadscalePreAuthKeyStatus{Conditions: ready(metav1.ConditionFalse, v1beta1.ReasonScaledToZero), Used: 1, Expiration: &expires, Over: true},
			want:   map[*prometheus.Desc]float64{readyDesc: 0, usedDesc: 1, expirationDesc: 1_800_000_000},
		},
		"no key": {
			status: v1beta1.HeadscalePreAuthKeyStatus{Conditions: ready(metav1.ConditionFalse, v1beta1.ReasonConflict)},
			want:   map[*prometheus.Desc]float64{readyDesc: 0, usedDesc: 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := map[*prometheus.Desc]float64{}
			expose(&v1beta1.HeadscalePreAuthKey{Spec: test.spec, Status: test.status}, func(desc *prometheus.Desc, value float64, _ ...string) { got[desc] = value })
			g.Expect(got).To(Equal(test.want))
		})
	}
}
