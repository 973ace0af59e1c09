package plugin

import (
	"bytes"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// policyNamed is a HeadscalePolicy that the operator has reported on an hour ago.
func policyNamed(name string, order int32, text, reason, message string) v1beta1.HeadscalePolicy {
	applied := at(-time.Hour)
	return v1beta1.HeadscalePolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Generation: 2},
		Spec:       v1beta1.HeadscalePolicySpec{HeadscaleRef: "headscale", Order: &order, HuJSON: text},
		Status: v1beta1.HeadscalePolicyStatus{ObservedGeneration: 2, AppliedAt: &applied,
			Conditions: []metav1.Condition{condition(v1beta1.ConditionReady, reason == v1beta1.ReasonReady, reason, message)}},
	}
}

func TestGoldenPolicy(t *testing.T) {
	const admins, web = `{"groups": {"group:admin": ["alice@"]}, "acls": [{"action": "accept", "src": ["group:admin"], "dst": ["*:*"]}]}`, `{"acls": [/* the web */ {"action": "accept", "src": ["*"], "dst": ["tag:web:443"]}]}`
	const byHand = "// by hand, with \x1b[2J what changes a terminal – and “more”\n" + `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}`
	ready := []v1beta1.HeadscalePolicy{
		policyNamed("web", 200, web, v1beta1.ReasonReady, "Headscale has it in its policy, joined with 1 more"),
		policyNamed("admins", 100, admins, v1beta1.ReasonReady, "Headscale has it in its policy, joined with 1 more"),
	}
	contested := []v1beta1.HeadscalePolicy{policyNamed("admins", 100, admins, v1beta1.ReasonContested, "Somebody else changes the policy again and again (now: acls, groups), and that is not reverted any more")}
	unread := func(report *policyReport) *policyReport {
		report.Unread = []string{"you are not allowed to read Secret headscale-api-key with the API key (get secrets), so that the policy in force is not known"}
		return report
	}
	describe := func(policies []v1beta1.HeadscalePolicy, inForce *headscale.Policy) *policyReport {
		return describePolicies(headscaleNamed("headscale"), policies, inForce)
	}
	hand := &headscale.Policy{Text: byHand, UpdatedAt: now.Add(-day)}
	for name, test := range map[string]struct {
		screen screen
		report *policyReport
	}{
		"policy-same":      {pipe, describe(ready, &headscale.Policy{Text: *describe(ready, nil).Joined, UpdatedAt: now.Add(-day)})},
		"policy-contested": {pipe, describe(contested, hand)},
		"policy-posix":     {inPOSIX, describe(contested, hand)},
		"policy-coloured":  {coloured, describe(contested, hand)},
		"policy-none":      {pipe, describe(nil, &headscale.Policy{})},
		"policy-no-rights": {narrow, unread(describe(ready, nil))},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			test.screen.showPolicy(&out, test.report, now)
			golden(t, name, out.String())
		})
	}
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			o := output(format)
			NewWithT(t).Expect(o.write(&out, describe(contested, hand))).To(Succeed())
			golden(t, "policy-"+format, out.String())
		})
	}
}
