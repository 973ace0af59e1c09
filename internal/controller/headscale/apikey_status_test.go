package headscale

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// TestStateOfKey goes along the life of a key that is valid for 90 days and should be
// replaced after 10, to the second.
func TestStateOfKey(t *testing.T) {
	expiration := time.Date(2027, 3, 1, 12, 0, 0, 123456000, time.UTC)
	due := expiration.Add(-1920 * time.Hour)
	overdue := due.Add(keystate.OverdueAfter)
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
			p := keyExpiring(test.now, expiration.Format(time.RFC3339Nano))
			key, reported := stateOfKey(p.scope, p.observed, status.Condition{})
			g.Expect(key.True).To(Equal(test.ok))
			g.Expect(key.Reason).To(Equal(test.reason))
			g.Expect(key.ChangesAt).To(BeTemporally("==", test.changesAt))
			g.Expect(reported.Expiration.Time).To(BeTemporally("==", expiration.Truncate(time.Second)))
			g.Expect(reported.NextRotation.Time).To(BeTemporally("==", due.Truncate(time.Second)))
		})
	}
}

// A key whose buffer is short expires before its rotation counts as overdue.
func TestStateOfShortLivedKey(t *testing.T) {
	g := NewWithT(t)
	expiration := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	p := keyExpiring(expiration.Add(-time.Second), expiration.Format(time.RFC3339))
	p.headscale.Spec.APIKey.Expiration, p.headscale.Spec.APIKey.RotationBuffer = "60s", "5s"
	key, _ := stateOfKey(p.scope, p.observed, status.Condition{})
	g.Expect(key.ChangesAt).To(BeTemporally("==", expiration))
}

func TestStateOfKeyWithoutOne(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	no := false
	for name, test := range map[string]struct {
		situation func() *situation
		ok        bool
		reason    string
	}{
		"no Secret": {func() *situation { p := keyExpiring(now, ""); p.secret = nil; return p }, false, v1beta1.ReasonKeyPending},
		"no time":   {func() *situation { return keyExpiring(now, "") }, false, v1beta1.ReasonKeyPending},
		"rubbish":   {func() *situation { return keyExpiring(now, "tomorrow") }, false, v1beta1.ReasonKeyPending},
		"half ours": {func() *situation {
			p := keyExpiring(now, "2028-01-01T00:00:00Z")
			delete(p.secret.Labels, v1beta1.LabelComponent)
			return p
		}, false, v1beta1.ReasonConflict},
		"taken":       {func() *situation { p := keyExpiring(now, ""); p.secretTaken = "taken"; return p }, false, v1beta1.ReasonConflict},
		"not managed": {func() *situation { p := keyExpiring(now, ""); p.headscale.Spec.APIKey.AutoManage = &no; return p }, true, v1beta1.ReasonNotManaged},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			p := test.situation()
			key, _ := stateOfKey(p.scope, p.observed, status.Condition{})
			g.Expect(key.True).To(Equal(test.ok))
			g.Expect(key.Reason).To(Equal(test.reason))
			g.Expect(key.Message).NotTo(BeEmpty())
			g.Expect(key.ChangesAt).To(BeZero())
		})
	}
}

// The log of the API Key Manager is named where there is one.
func TestWhereToLookForAKey(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	waiting := corev1.ContainerStatus{Name: resources.ContainerManager, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reasonInitializing}}}
	const logs, available = "kubectl logs headscale-0 -c apikey-manager tells why", "in pod headscale-0, for which the condition Available tells what is missing"
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		says string
	}{
		"no pod":                          {nil, available},
		"a pod without a node":            {&corev1.Pod{}, available},
		"containers that start before it": {&corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{waiting}}}, available},
		"it runs":                         {&corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running(resources.ContainerManager, true)}}}, logs},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			for expiration, also := range map[string]string{"": "No API key is in Secret headscale-api-key yet", "2026-01-01T00:00:00Z": "expired at 2026-01-01T00:00:00Z"} {
				p := keyExpiring(now, expiration)
				p.pod = test.pod
				key, _ := stateOfKey(p.scope, p.observed, status.Condition{})
				g.Expect(key.Message).To(And(ContainSubstring(also), ContainSubstring(test.says)))
			}
		})
	}
}

// situation is the input of a judgement.
type situation struct {
	scope
	observed
}

// keyExpiring is the situation of a Headscale whose Secret has the expiration.
func keyExpiring(now time.Time, expiration string) *situation {
	headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Name: "headscale"}}
	return &situation{scope{headscale, now}, observed{secret: &metav1.PartialObjectMetadata{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
			Annotations: map[string]string{v1beta1.AnnotationExpiration: expiration},
		},
	}}}
}
