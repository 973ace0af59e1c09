package headscale

import (
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

func TestReadiness(t *testing.T) {
	good := status.True(v1beta1.ReasonReady, "")
	bad := func(reason string) status.Condition { return status.False(reason, reason+"!") }
	late := status.True(v1beta1.ReasonKeyOverdue, "late")
	failing := status.True(v1beta1.ReasonRotationFailing, "failing")
	for name, test := range map[string]struct {
		available, rolledOut, key status.Condition
		failed                    *status.Failure
		want                      status.Condition
	}{
		"all is well":       {good, good, good, nil, status.True(v1beta1.ReasonReady, "Headscale is running with the desired configuration")},
		"an error":          {bad("A"), bad("B"), bad("C"), &status.Failure{Reason: "X", Message: "x"}, status.False("X", "x")},
		"the pod":           {bad("A"), bad("B"), bad("C"), nil, bad("A")},
		"the pod being old": {good, bad("B"), bad("C"), nil, bad("B")},
		"the key":           {good, good, bad("C"), nil, bad("C")},
		"a late key":        {good, good, late, nil, late},
		"a failing key":     {good, good, failing, nil, failing},
	} {
		f := findings{available: test.available, rolledOut: test.rolledOut, key: test.key, failed: test.failed}
		NewWithT(t).Expect(readiness(f)).To(Equal(test.want), name)
	}
}
