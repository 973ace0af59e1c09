package keystate_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
)

// expiration is when the key of the tests expires: to the microsecond, as Headscale has it.
var expiration = time.Date(2027, 3, 1, 12, 0, 0, 123456000, time.UTC)

// secretWith is the metadata of an API key Secret.
func secretWith(annotations map[string]string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Labels:      map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
		Annotations: annotations,
	}}
}

// stored is the metadata of a Secret with a key.
func stored() *metav1.PartialObjectMetadata {
	return secretWith(map[string]string{
		v1beta1.AnnotationExpiration: expiration.Format(time.RFC3339Nano),
		v1beta1.AnnotationCreatedAt:  expiration.Add(-v1beta1.DefaultExpiration).Format(time.RFC3339),
		v1beta1.AnnotationKeyPrefix:  "9ac3e6a37ae0",
	})
}

// unmanaged is a spec without an API Key Manager.
func unmanaged() *v1beta1.APIKeySpec {
	no := false
	return &v1beta1.APIKeySpec{AutoManage: &no}
}

// The life of a key that is valid for 90 days and to be replaced after 10, to the
// nanosecond, as it is seen in the Secret.
func TestStatesOfAKey(t *testing.T) {
	due := expiration.Add(-1920 * time.Hour)
	overdue := due.Add(30 * time.Second)
	for name, test := range map[string]struct {
		spec       *v1beta1.APIKeySpec
		now        time.Time
		state      keystate.State
		nextChange time.Time
	}{
		"new":                           {&v1beta1.APIKeySpec{}, due.Add(-240 * time.Hour), keystate.Valid, overdue},
		"due":                           {&v1beta1.APIKeySpec{}, due, keystate.Valid, overdue},
		"29 s late":                     {&v1beta1.APIKeySpec{}, due.Add(29 * time.Second), keystate.Valid, overdue},
		"a nanosecond before 30 s late": {&v1beta1.APIKeySpec{}, overdue.Add(-1), keystate.Valid, overdue},
		"30 s late":                     {&v1beta1.APIKeySpec{}, overdue, keystate.Overdue, expiration},
		"a minute late":                 {&v1beta1.APIKeySpec{}, due.Add(time.Minute), keystate.Overdue, expiration},
		"a nanosecond before its end":   {&v1beta1.APIKeySpec{}, expiration.Add(-1), keystate.Overdue, expiration},
		"expired":                       {&v1beta1.APIKeySpec{}, expiration, keystate.Expired, time.Time{}},
		"long expired":                  {&v1beta1.APIKeySpec{}, expiration.Add(8760 * time.Hour), keystate.Expired, time.Time{}},
		"a short buffer":                {&v1beta1.APIKeySpec{Expiration: "60s", RotationBuffer: "5s"}, expiration.Add(-1), keystate.Valid, expiration},
		"a short buffer, expired":       {&v1beta1.APIKeySpec{Expiration: "60s", RotationBuffer: "5s"}, expiration, keystate.Expired, time.Time{}},
		"a buffer of 30 s":              {&v1beta1.APIKeySpec{Expiration: "60s", RotationBuffer: "30s"}, expiration.Add(-1), keystate.Valid, expiration},
		"not managed":                   {unmanaged(), expiration.Add(-1), keystate.Valid, expiration},
		"not managed, expired":          {unmanaged(), expiration, keystate.Expired, time.Time{}},
		"a lifetime that is none":       {&v1beta1.APIKeySpec{Expiration: "90d"}, expiration.Add(-1), keystate.Valid, expiration},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			key := keystate.FromSecret(test.spec, stored(), test.now)
			g.Expect(key.State).To(Equal(test.state))
			g.Expect(key.State.Usable()).To(Equal(test.state != keystate.Expired))
			g.Expect(key.NextChange).To(BeTemporally("==", test.nextChange))
		})
	}
}

// The status has whole seconds; apart from that, it says what the Secret says.
func TestStatusAndSecretAgree(t *testing.T) {
	whole := expiration.Truncate(time.Second)
	secret := stored()
	secret.Annotations[v1beta1.AnnotationExpiration] = whole.Format(time.RFC3339)
	delete(secret.Annotations, v1beta1.AnnotationCreatedAt)
	status := &v1beta1.APIKeyStatus{SecretName: v1beta1.DefaultSecretName, KeyPrefix: "9ac3e6a37ae0", Expiration: &metav1.Time{Time: whole}}
	due := whole.Add(-1920 * time.Hour)
	for _, now := range []time.Time{due.Add(-1), due, due.Add(keystate.OverdueAfter - 1), due.Add(keystate.OverdueAfter), whole.Add(-1), whole} {
		for _, spec := range []*v1beta1.APIKeySpec{{}, unmanaged()} {
			NewWithT(t).Expect(keystate.FromStatus(spec, status, now)).To(Equal(keystate.FromSecret(spec, secret, now)), now.String())
		}
	}
}

func TestWhatIsKnownOfAKey(t *testing.T) {
	g := NewWithT(t)
	secret := stored()
	secret.Annotations[v1beta1.AnnotationCreatedAt] = "2026-12-01T14:00:00+02:00"
	secret.Annotations[v1beta1.AnnotationRetiring] = "old@2026-12-01T12:05:00Z, older@2026-12-01T12:00:00Z,@,x"
	g.Expect(keystate.FromSecret(&v1beta1.APIKeySpec{}, secret, expiration.Add(-v1beta1.DefaultExpiration))).To(Equal(keystate.Key{
		State:        keystate.Valid,
		Prefix:       "9ac3e6a37ae0",
		CreatedAt:    time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC),
		Expiration:   expiration,
		Lifetime:     v1beta1.DefaultExpiration + 123456*time.Microsecond,
		NextRotation: expiration.Add(-1920 * time.Hour),
		NextChange:   expiration.Add(-1920*time.Hour + keystate.OverdueAfter),
		Retiring: []keystate.Retiring{
			{Prefix: "old", RevokedAt: time.Date(2026, 12, 1, 12, 5, 0, 0, time.UTC)},
			{Prefix: "older", RevokedAt: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)},
		},
		Unfinished: &keystate.Step{Kind: keystate.Revoke, Since: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC), Name: "older"},
	}))
	g.Expect(keystate.FromSecret(unmanaged(), stored(), expiration)).To(HaveField("NextRotation", BeZero()))
}

func TestKeysThatAreNotThere(t *testing.T) {
	foreign := stored()
	delete(foreign.Labels, v1beta1.LabelComponent)
	for name, test := range map[string]struct {
		key   keystate.Key
		state keystate.State
	}{
		"no Secret":              {keystate.FromSecret(&v1beta1.APIKeySpec{}, nil, expiration), keystate.Missing},
		"an empty Secret":        {keystate.FromSecret(&v1beta1.APIKeySpec{}, secretWith(nil), expiration), keystate.Missing},
		"no time":                {keystate.FromSecret(&v1beta1.APIKeySpec{}, secretWith(map[string]string{v1beta1.AnnotationExpiration: "soon"}), expiration), keystate.Missing},
		"somebody else's":        {keystate.FromSecret(&v1beta1.APIKeySpec{}, foreign, expiration), keystate.NotOurs},
		"no status":              {keystate.FromStatus(&v1beta1.APIKeySpec{}, nil, expiration), keystate.Unknown},
		"of another Secret":      {keystate.FromStatus(&v1beta1.APIKeySpec{}, &v1beta1.APIKeyStatus{SecretName: "other"}, expiration), keystate.Unknown},
		"a status without a key": {keystate.FromStatus(&v1beta1.APIKeySpec{}, &v1beta1.APIKeyStatus{SecretName: v1beta1.DefaultSecretName}, expiration), keystate.Missing},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(test.key).To(Equal(keystate.Key{State: test.state}))
		})
	}
}
