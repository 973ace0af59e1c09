package headscale

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// TestStateOfKey goes along the life of a key that is valid for 90 days and should be
// replaced after 10, to the second.
func TestStateOfKey(t *testing.T) {
	expiration := time.Date(2027, 3, 1, 12, 0, 0, 123456000, time.UTC)
	due := expiration.Add(-1920 * time.Hour)
	overdue := due.Add(overdueAfter)
	for name, test := range map[string]struct {
		now       time.Time
		ok        bool
		reason    string
		changesAt time.Time
	}{
		"new":                      {due.Add(-240 * time.Hour), true, v1beta1.ReasonKeyValid, overdue},
		"due":                      {due, true, v1beta1.ReasonKeyValid, overdue},
		"a moment before overdue":  {overdue.Add(-1), true, v1beta1.ReasonKeyValid, overdue},
		"overdue":                  {overdue, true, v1beta1.ReasonKeyOverdue, expiration},
		"a moment before expiring": {expiration.Add(-1), true, v1beta1.ReasonKeyOverdue, expiration},
		"expired":                  {expiration, false, v1beta1.ReasonKeyExpired, time.Time{}},
		"long expired":             {expiration.Add(8760 * time.Hour), false, v1beta1.ReasonKeyExpired, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			state := stateOfKey(passWith(test.now, expiration.Format(time.RFC3339Nano)), state{})
			g.Expect(state.ok).To(Equal(test.ok))
			g.Expect(state.reason).To(Equal(test.reason))
			g.Expect(state.changesAt).To(BeTemporally("==", test.changesAt))
			g.Expect(state.status.Expiration.Time).To(BeTemporally("==", expiration.Truncate(time.Second)))
			g.Expect(state.status.NextRotation.Time).To(BeTemporally("==", due.Truncate(time.Second)))
		})
	}
}

// A key whose buffer is short expires before its rotation counts as overdue.
func TestStateOfShortLivedKey(t *testing.T) {
	g := NewWithT(t)
	expiration := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	p := passWith(expiration.Add(-time.Second), expiration.Format(time.RFC3339))
	p.headscale.Spec.APIKey.Expiration, p.headscale.Spec.APIKey.RotationBuffer = "60s", "5s"
	g.Expect(stateOfKey(p, state{}).changesAt).To(BeTemporally("==", expiration))
}

func TestStateOfKeyWithoutOne(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	no := false
	for name, test := range map[string]struct {
		pass   func() *pass
		ok     bool
		reason string
	}{
		"no Secret": {func() *pass { p := passWith(now, ""); p.secret = nil; return p }, false, v1beta1.ReasonKeyPending},
		"no time":   {func() *pass { return passWith(now, "") }, false, v1beta1.ReasonKeyPending},
		"rubbish":   {func() *pass { return passWith(now, "tomorrow") }, false, v1beta1.ReasonKeyPending},
		"half ours": {func() *pass {
			p := passWith(now, "2028-01-01T00:00:00Z")
			delete(p.secret.Labels, v1beta1.LabelComponent)
			return p
		}, false, v1beta1.ReasonConflict},
		"taken":       {func() *pass { p := passWith(now, ""); p.secretTaken = "taken"; return p }, false, v1beta1.ReasonConflict},
		"not managed": {func() *pass { p := passWith(now, ""); p.headscale.Spec.APIKey.AutoManage = &no; return p }, true, v1beta1.ReasonNotManaged},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			state := stateOfKey(test.pass(), state{})
			g.Expect(state.ok).To(Equal(test.ok))
			g.Expect(state.reason).To(Equal(test.reason))
			g.Expect(state.message).NotTo(BeEmpty())
			g.Expect(state.changesAt).To(BeZero())
		})
	}
}

// passWith is a pass over a Headscale whose Secret has the expiration.
func passWith(now time.Time, expiration string) *pass {
	return &pass{now: now, headscale: &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Name: "headscale"}}, secret: &metav1.PartialObjectMetadata{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
			Annotations: map[string]string{v1beta1.AnnotationExpiration: expiration},
		},
	}}
}
