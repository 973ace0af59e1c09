package headscale

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

func TestClassify(t *testing.T) {
	kind := schema.GroupKind{Kind: "StatefulSet"}
	broken := errors.New("broken")
	outdated := apierrors.NewConflict(schema.GroupResource{}, "x", broken)
	terminating := &apierrors.StatusError{ErrStatus: metav1.Status{
		Reason: metav1.StatusReasonForbidden, Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}},
	}}
	for name, test := range map[string]struct {
		err       error
		reason    string
		retry     time.Duration
		transient bool
	}{
		"a name that is taken":           {errors.Join(foreignObjects([]string{"Role x"}), nil), v1beta1.ReasonConflict, conflictRetry, false},
		"a spec that cannot be built":    {fmt.Errorf("building: %w", &resources.InvalidError{Field: "config", Message: "is wrong"}), v1beta1.ReasonInvalidConfig, 0, false},
		"an object that is refused":      {fmt.Errorf("applying: %w", apierrors.NewInvalid(kind, "x", nil)), v1beta1.ReasonInvalidConfig, 0, false},
		"a namespace that goes away":     {fmt.Errorf("applying: %w", terminating), v1beta1.ReasonReconcileFailed, 0, false},
		"a right that is missing":        {apierrors.NewForbidden(schema.GroupResource{}, "x", broken), v1beta1.ReasonReconcileFailed, 0, true},
		"an API server that is away":     {broken, v1beta1.ReasonReconcileFailed, 0, true},
		"a write that came in between":   {errors.Join(fmt.Errorf("growing: %w", outdated), nil), v1beta1.ReasonReconcileFailed, outdatedRetry, false},
		"that, and one for the user":     {errors.Join(outdated, &resources.InvalidError{Field: "config", Message: "is wrong"}), v1beta1.ReasonInvalidConfig, outdatedRetry, false},
		"one for the user, and that":     {errors.Join(foreignObjects([]string{"Role x"}), outdated), v1beta1.ReasonConflict, outdatedRetry, false},
		"that, and a broken one":         {errors.Join(outdated, broken), v1beta1.ReasonReconcileFailed, 0, true},
		"two errors, one for the user":   {errors.Join(&resources.InvalidError{Field: "config", Message: "is wrong"}, broken), v1beta1.ReasonReconcileFailed, 0, true},
		"two errors, one of them a name": {errors.Join(broken, foreignObjects([]string{"Role x"})), v1beta1.ReasonReconcileFailed, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := classify(test.err)
			g.Expect(got.reason).To(Equal(test.reason))
			g.Expect(got.message).NotTo(BeEmpty())
			g.Expect(got.retryAfter).To(Equal(test.retry))
			if test.transient {
				g.Expect(got.transient).To(MatchError(test.err))
				return
			}
			g.Expect(got.transient).NotTo(HaveOccurred())
		})
	}
	NewWithT(t).Expect(classify(nil)).To(BeNil())
	NewWithT(t).Expect(classify(errors.Join(nil, nil))).To(BeNil())
}

func TestComeBack(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	conflict := &failure{retryAfter: time.Minute}
	for name, test := range map[string]struct {
		changesAt time.Time
		failed    *failure
		want      time.Duration
	}{
		"never":                      {time.Time{}, nil, 0},
		"when the key changes":       {now.Add(time.Hour), nil, time.Hour},
		"at once":                    {now, nil, time.Millisecond},
		"not for the user":           {time.Time{}, &failure{}, 0},
		"for a conflict":             {time.Time{}, conflict, time.Minute},
		"for a conflict, as earlier": {now.Add(time.Hour), conflict, time.Minute},
		"for the key, as earlier":    {now.Add(time.Second), conflict, time.Second},
	} {
		NewWithT(t).Expect(comeBack(now, test.changesAt, test.failed)).To(Equal(test.want), name)
	}
}

func TestReadiness(t *testing.T) {
	good := verdict{ok: true, reason: v1beta1.ReasonReady}
	bad := func(reason string) verdict { return verdict{false, reason, reason + "!"} }
	late := verdict{true, v1beta1.ReasonKeyOverdue, "late"}
	failing := verdict{true, v1beta1.ReasonRotationFailing, "failing"}
	for name, test := range map[string]struct {
		available, rolledOut, key verdict
		failed                    *failure
		want                      verdict
	}{
		"all is well":       {good, good, good, nil, verdict{true, v1beta1.ReasonReady, "Headscale is running as asked for"}},
		"an error":          {bad("A"), bad("B"), bad("C"), &failure{reason: "X", message: "x"}, verdict{false, "X", "x"}},
		"the pod":           {bad("A"), bad("B"), bad("C"), nil, bad("A")},
		"the pod being old": {good, bad("B"), bad("C"), nil, bad("B")},
		"the key":           {good, good, bad("C"), nil, bad("C")},
		"a late key":        {good, good, late, nil, late},
		"a failing key":     {good, good, failing, nil, failing},
	} {
		parts := judgement{available: state{verdict: test.available}, rolledOut: test.rolledOut, key: state{verdict: test.key}, failed: test.failed}
		NewWithT(t).Expect(readiness(parts)).To(Equal(test.want), name)
	}
}

func TestCut(t *testing.T) {
	g := NewWithT(t)
	g.Expect(cut("short", maxMessage)).To(Equal("short"))
	long := cut(strings.Repeat("ü", maxMessage), maxMessage)
	g.Expect(len(long)).To(BeNumerically("<=", maxMessage))
	g.Expect(utf8.ValidString(long)).To(BeTrue())
	g.Expect(long).To(HaveSuffix("…"))
}
