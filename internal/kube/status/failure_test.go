package status

import (
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/kubeapi"
)

// userError is an error that only the user can fix.
type userError struct{}

func (userError) Error() string  { return "spec.config is wrong" }
func (userError) Reason() string { return v1beta1.ReasonInvalidConfig }

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
		"a name that is taken":            {errors.Join(&ConflictError{Message: "Role x exists already"}, nil), v1beta1.ReasonConflict, kubeapi.ConflictRetry, false},
		"a spec that cannot be built":     {fmt.Errorf("building: %w", userError{}), v1beta1.ReasonInvalidConfig, 0, false},
		"an object that is refused":       {fmt.Errorf("applying: %w", apierrors.NewInvalid(kind, "x", field.ErrorList{field.Required(field.NewPath("spec"), "")})), v1beta1.ReasonInvalidConfig, 0, false},
		"an object that a policy refuses": {fmt.Errorf("applying: %w", apierrors.NewInvalid(kind, "x", nil)), v1beta1.ReasonReconcileFailed, 0, true},
		"a namespace that goes away":      {fmt.Errorf("applying: %w", terminating), v1beta1.ReasonReconcileFailed, terminatingRetry, false},
		"a right that is missing":         {apierrors.NewForbidden(schema.GroupResource{}, "x", broken), v1beta1.ReasonReconcileFailed, 0, true},
		"an API server that is away":      {broken, v1beta1.ReasonReconcileFailed, 0, true},
		"a write that came in between":    {errors.Join(fmt.Errorf("growing: %w", outdated), nil), v1beta1.ReasonReconcileFailed, outdatedRetry, false},
		"that, and one for the user":      {errors.Join(outdated, userError{}), v1beta1.ReasonInvalidConfig, outdatedRetry, false},
		"one for the user, and that":      {errors.Join(&ConflictError{Message: "Role x exists already"}, outdated), v1beta1.ReasonConflict, outdatedRetry, false},
		"that, and a broken one":          {errors.Join(outdated, broken), v1beta1.ReasonReconcileFailed, 0, true},
		"two errors, one for the user":    {errors.Join(userError{}, broken), v1beta1.ReasonReconcileFailed, 0, true},
		"a nested one, after a user's":    {errors.Join(userError{}, errors.Join(outdated, userError{})), v1beta1.ReasonInvalidConfig, outdatedRetry, false},
		"a user's, and a later one":       {errors.Join(userError{}, &ConflictError{Message: "Role x exists already"}), v1beta1.ReasonInvalidConfig, kubeapi.ConflictRetry, false},
		"something that is waited for":    {fmt.Errorf("expanding: %w", &WaitError{Because: v1beta1.ReasonVolumeWaiting, Message: "wait"}), v1beta1.ReasonVolumeWaiting, 0, false},
		"one for the user, later":         {Later(time.Hour, userError{}), v1beta1.ReasonInvalidConfig, time.Hour, false},
		"two errors, one of them a name":  {errors.Join(broken, &ConflictError{Message: "Role x exists already"}), v1beta1.ReasonReconcileFailed, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := Classify(test.err)
			g.Expect(got.Reason).To(Equal(test.reason))
			g.Expect(got.Message).NotTo(BeEmpty())
			g.Expect(got.RetryAfter).To(Equal(test.retry))
			if test.transient {
				g.Expect(got.Transient).To(MatchError(test.err))
				return
			}
			g.Expect(got.Transient).NotTo(HaveOccurred())
			g.Expect(got.Waiting).To(Equal(test.reason == v1beta1.ReasonVolumeWaiting))
		})
	}
	both := Classify(errors.Join(outdated, userError{}, &ConflictError{Message: "Role x exists already"}))
	NewWithT(t).Expect(both.Message).To(Equal("spec.config is wrong; Role x exists already"))
	NewWithT(t).Expect(Classify(nil)).To(BeNil())
	NewWithT(t).Expect(Classify(errors.Join(nil, nil))).To(BeNil())
}

func TestLastingConflict(t *testing.T) {
	broken := errors.New("broken")
	outdated := apierrors.NewConflict(schema.GroupResource{}, "x", broken)
	const lasting = "Writes keep failing with an optimistic-lock conflict: "
	for name, test := range map[string]struct {
		err             error
		reason, message string
	}{
		"alone":                      {outdated, v1beta1.ReasonReconcileFailed, lasting + outdated.Error()},
		"twice":                      {errors.Join(outdated, outdated), v1beta1.ReasonReconcileFailed, lasting + outdated.Error()},
		"before one for the user":    {errors.Join(outdated, userError{}), v1beta1.ReasonInvalidConfig, "spec.config is wrong; " + lasting + outdated.Error()},
		"after one for the user":     {errors.Join(userError{}, outdated), v1beta1.ReasonInvalidConfig, "spec.config is wrong; " + lasting + outdated.Error()},
		"with a broken one":          {errors.Join(outdated, broken), v1beta1.ReasonReconcileFailed, "broken; " + lasting + outdated.Error()},
		"between those":              {errors.Join(userError{}, outdated, broken), v1beta1.ReasonReconcileFailed, "spec.config is wrong; broken; " + lasting + outdated.Error()},
		"nested, after one for user": {errors.Join(userError{}, errors.Join(outdated, broken)), v1beta1.ReasonReconcileFailed, "spec.config is wrong; broken; " + lasting + outdated.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			failed := Classify(test.err)
			g.Expect(failed.Conflict).To(Equal(outdated.Error()))
			failed = failed.Lasting(test.err)
			g.Expect(failed.Reason).To(Equal(test.reason))
			g.Expect(failed.Message).To(Equal(test.message))
			g.Expect(failed.Transient).To(MatchError(test.err))
			g.Expect(failed.RetryAfter).To(BeZero())
		})
	}
	NewWithT(t).Expect(Classify(errors.Join(userError{}, broken)).Conflict).To(BeEmpty())
}

func TestRequeueAfter(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	conflict := &Failure{RetryAfter: time.Minute}
	for name, test := range map[string]struct {
		changesAt time.Time
		failed    *Failure
		want      time.Duration
	}{
		"never":                      {time.Time{}, nil, 0},
		"when the key changes":       {now.Add(time.Hour), nil, time.Hour},
		"at once":                    {now, nil, time.Millisecond},
		"not for the user":           {time.Time{}, &Failure{}, 0},
		"for a conflict":             {time.Time{}, conflict, time.Minute},
		"for a conflict, as earlier": {now.Add(time.Hour), conflict, time.Minute},
		"for the key, as earlier":    {now.Add(time.Second), conflict, time.Second},
	} {
		NewWithT(t).Expect(RequeueAfter(now, test.changesAt, test.failed)).To(Equal(test.want), name)
	}
}
