package keystate_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
)

// noon is the time of the tests of the ledger: a day after the key was created.
var noon = expiration.Add(24*time.Hour - v1beta1.DefaultExpiration).Truncate(time.Second)

// pending is the entry of a key that was requested from Headscale some time before noon.
func pending(before time.Duration) string {
	return "2027-04-01T00:00:00.123456Z@" + noon.Add(-before).Format(time.RFC3339Nano)
}

// writtenBy is an entry of managed fields that was written some time before noon.
func writtenBy(manager, fields string, before time.Duration) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{Manager: manager, Time: &metav1.Time{Time: noon.Add(-before)}, FieldsV1: metav1.NewFieldsV1(fields)}
}

// ofRequest are the managed fields of who wrote a request.
const ofRequest = `{"f:metadata":{"f:annotations":{".":{},"f:api-key.headscale.infrado.cloud/rotate-requested-at":{},"f:other":{}}}}`

func TestUnfinishedSteps(t *testing.T) {
	const request, handled = v1beta1.AnnotationRotateRequestedAt, v1beta1.AnnotationRotateHandled
	revoke := func(at time.Time, name string) *keystate.Step {
		return &keystate.Step{Kind: keystate.Revoke, Since: at, Name: name}
	}
	create := &keystate.Step{Kind: keystate.Create, Since: noon.Add(-time.Minute)}
	for name, test := range map[string]struct {
		annotations map[string]string
		want        *keystate.Step
		pending     time.Time
	}{
		"none":                        {nil, nil, time.Time{}},
		"rubbish":                     {map[string]string{v1beta1.AnnotationPending: "x@y,@,", v1beta1.AnnotationRetiring: "@,x"}, nil, time.Time{}},
		"a key was requested":         {map[string]string{v1beta1.AnnotationPending: pending(time.Minute)}, create, create.Since},
		"the first of two":            {map[string]string{v1beta1.AnnotationPending: pending(time.Second) + ", " + pending(time.Minute)}, create, create.Since},
		"before the stored one":       {map[string]string{v1beta1.AnnotationPending: pending(25 * time.Hour)}, nil, time.Time{}},
		"a second after it":           {map[string]string{v1beta1.AnnotationPending: pending(24*time.Hour - time.Second)}, nil, time.Time{}},
		"more than a second after it": {map[string]string{v1beta1.AnnotationPending: pending(24*time.Hour - time.Second - 1)}, &keystate.Step{Kind: keystate.Create, Since: noon.Add(-24*time.Hour + time.Second + 1)}, noon.Add(-24*time.Hour + time.Second + 1)},
		"a request":                   {map[string]string{request: "now"}, &keystate.Step{Kind: keystate.Request, Since: noon.Add(-time.Hour), Name: "now"}, time.Time{}},
		"a request after another":     {map[string]string{request: "now", handled: "before"}, &keystate.Step{Kind: keystate.Request, Since: noon.Add(-time.Hour), Name: "now"}, time.Time{}},
		"a request that was executed": {map[string]string{request: "now", handled: "now"}, nil, time.Time{}},
		"a key to be revoked later":   {map[string]string{v1beta1.AnnotationRetiring: "old@" + noon.Add(time.Hour).Format(time.RFC3339)}, revoke(noon.Add(time.Hour), "old"), time.Time{}},
		"the oldest of all": {map[string]string{request: "now", v1beta1.AnnotationPending: pending(time.Minute),
			v1beta1.AnnotationRetiring: "old@" + noon.Add(-2*time.Hour).Format(time.RFC3339)}, revoke(noon.Add(-2*time.Hour), "old"), create.Since},
		"of two at once, what comes first": {map[string]string{v1beta1.AnnotationPending: pending(time.Minute),
			v1beta1.AnnotationRetiring: "old@" + create.Since.Format(time.RFC3339)}, create, create.Since},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			secret := stored()
			secret.Annotations[v1beta1.AnnotationCreatedAt] = noon.Add(-24 * time.Hour).Format(time.RFC3339)
			maps.Copy(secret.Annotations, test.annotations)
			secret.ManagedFields = []metav1.ManagedFieldsEntry{writtenBy("kubectl", ofRequest, time.Hour), writtenBy("apikey-manager", `{"f:data":{}}`, 0)}
			key := keystate.FromSecret(&v1beta1.APIKeySpec{}, secret, noon)
			g.Expect(key.State).To(Equal(keystate.Valid), "the stored key is good")
			g.Expect(key.Unfinished).To(Equal(test.want))
			g.Expect(key.PendingSince).To(BeTemporally("==", test.pending))
		})
	}
}

// Without a key, every key that was requested is still to come, whatever is left of the
// annotations of an earlier one.
func TestPendingWithoutAKey(t *testing.T) {
	g := NewWithT(t)
	secret := secretWith(map[string]string{v1beta1.AnnotationCreatedAt: noon.Format(time.RFC3339), v1beta1.AnnotationPending: pending(time.Hour)})
	key := keystate.FromSecret(&v1beta1.APIKeySpec{}, secret, noon)
	g.Expect(key.State).To(Equal(keystate.Missing))
	g.Expect(key.PendingSince).To(BeTemporally("==", noon.Add(-time.Hour)))
}

func TestStripManagedFieldsKeepsWhoRequested(t *testing.T) {
	g := NewWithT(t)
	secret := secretWith(nil)
	secret.CreationTimestamp = metav1.Time{Time: noon.Add(-24 * time.Hour)}
	secret.ManagedFields = []metav1.ManagedFieldsEntry{
		writtenBy("kubectl", strings.ReplaceAll(ofRequest, "f:other", "f:"+strings.Repeat("x", 100)), time.Hour),
		writtenBy("apikey-manager", `{"f:data":{}}`, time.Minute), writtenBy("broken", `{`, 0), {Manager: "empty"},
	}
	before := keystate.RequestedSince(secret)
	keystate.StripManagedFields(secret)
	g.Expect(secret.ManagedFields).To(HaveExactElements(HaveField("Manager", "kubectl")))
	g.Expect(len(secret.ManagedFields[0].FieldsV1.GetRawBytes())).To(BeNumerically("<", 100))
	g.Expect(keystate.RequestedSince(secret)).To(And(BeTemporally("==", before), BeTemporally("==", noon.Add(-time.Hour))))

	secret.ManagedFields = nil
	g.Expect(keystate.RequestedSince(secret)).To(BeTemporally("==", secret.CreationTimestamp.Time), "the request is as old as the Secret")
}
