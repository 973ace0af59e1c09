package user

import (
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// TestStatus has what kstatus reads: Ready always, Reconciling while something is waited for, and
// Stalled while somebody must act, never both.
func TestStatus(t *testing.T) {
	waiting := &instance.Problem{Because: v1beta1.ReasonNotReady, Message: "it is late"}
	for name, test := range map[string]struct {
		err   error
		since time.Duration
		// ready is the status and reason of Ready, and other the condition besides.
		ready, other string
	}{
		"the user exists":            {nil, 0, "True Ready", ""},
		"waited for":                 {waiting, time.Minute, "False NotReady", v1beta1.ConditionReconciling},
		"waited for too long":        {waiting, 10 * time.Minute, "False NotReady", v1beta1.ConditionStalled},
		"somebody must act":          {&instance.Problem{Because: v1beta1.ReasonNotAllowed, Message: "no", Lasting: true}, 0, "False NotAllowed", v1beta1.ConditionStalled},
		"refused, and tried again":   {refusal("create user x", &headscale.Refusal{Words: "no"}), 0, "False Refused", v1beta1.ConditionStalled},
		"the API server is away":     {errors.New("connection refused"), 0, "False ReconcileFailed", v1beta1.ConditionReconciling},
		"the renaming of another":    {waitFor(headscale.User{}, "wait").err, 0, "False RenamePending", v1beta1.ConditionReconciling},
		"two problems, one for good": {errors.Join(waiting, errors.New("away")), 0, "False ReconcileFailed", v1beta1.ConditionReconciling},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			user := object("bob", has(1))
			user.Status.Conditions = []metav1.Condition{{Type: v1beta1.ConditionReady, Status: metav1.ConditionFalse, LastTransitionTime: metav1.NewTime(at(0))}}
			s := &scope{user: user, now: at(0).Add(test.since), done: decision{user: userNamed(1, "bob")}}
			failed := status.Classify(test.err)
			reported := user.Status.DeepCopy()
			describeStatus(reported, s, readiness(s, failed), failed)
			ready := meta.FindStatusCondition(reported.Conditions, v1beta1.ConditionReady)
			g.Expect(fmt.Sprint(ready.Status, " ", ready.Reason)).To(Equal(test.ready))
			for _, kind := range []string{v1beta1.ConditionReconciling, v1beta1.ConditionStalled} {
				g.Expect(meta.IsStatusConditionTrue(reported.Conditions, kind)).To(Equal(kind == test.other), kind)
			}
			g.Expect(reported.ObservedGeneration).To(Equal(user.Generation))
			g.Expect(reported.UserID).To(BeEquivalentTo(1))
		})
	}
}

// TestWhatMayHaveHappened has a user be taken for the object's own only where it may be.
func TestWhatMayHaveHappened(t *testing.T) {
	refused := &headscale.Refusal{Words: "no"}
	for name, test := range map[string]struct {
		err          error
		first, again bool
	}{
		"no answer":                {fmt.Errorf("%w: reset", headscale.ErrUnavailable), true, true},
		"another certificate":      {headscale.ErrPinMismatch, false, false},
		"another key":              {headscale.ErrUnauthorized, false, false},
		"the name exists":          {fmt.Errorf("creating a user: %w", headscale.ErrUserExists), false, true},
		"Headscale refuses":        {refusal("create user x", fmt.Errorf("creating a user: %w", refused)), false, false},
		"the decision is outdated": {errOutdated, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(mayHaveHappened(test.err, true)).To(Equal(test.first))
			g.Expect(mayHaveHappened(test.err, false)).To(Equal(test.again))
		})
	}
}
