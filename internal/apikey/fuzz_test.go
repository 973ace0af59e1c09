package apikey

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// FuzzDecide gives Decide whatever a Secret may say. Reading it never fails, what
// is read and written again reads the same, and no key is expired that is neither ours
// nor named by the Secret's own notes.
func FuzzDecide(f *testing.F) {
	f.Add("hskey-api-OurPrefix-01-x", "2026-01-01T13:00:00.986594Z", "OurPrefix-01", "", "2026-01-01T13:00:00Z@2026-01-01T12:00:00Z", "Other_Prefix@2026-01-01T12:00:00Z")
	f.Add("", "", "", "", "", "")
	f.Add("1234567.abc", "soon", "@", ",", "@,@@,x@y", "a@b,,c")
	f.Add("x\n", "0001-01-01T00:00:00Z", "a@b", "deadbeef", "9999-12-31T23:59:59Z@0001-01-01T00:00:00Z", "@2026-01-01T12:00:00Z")
	f.Fuzz(func(t *testing.T, value, expiration, prefix, digest, pending, retiring string) {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
				Annotations: map[string]string{
					v1beta1.AnnotationExpiration: expiration, v1beta1.AnnotationKeyPrefix: prefix, v1beta1.AnnotationKeyDigest: digest,
					v1beta1.AnnotationPending: pending, v1beta1.AnnotationRetiring: retiring,
				},
			},
			Data: map[string][]byte{v1beta1.SecretDataKey: []byte(value)},
		}
		record := ReadRecord(secret)
		if again := ReadRecord(WriteRecord(record, secret)); !again.Regular {
			t.Fatalf("%+v is not read as it was written", again)
		}
		view := goodView()
		view.Record = &record
		const others = "SomebodyElse"
		view.Credentials = append(view.Credentials, credentialOf(headscale.APIKey{Prefix: others, Expiration: noon.Add(87600 * time.Hour)}))
		for _, expired := range rotation.Decide(view).Expire {
			if expired == others && !named(record, others) {
				t.Fatalf("the key %s is not ours", expired)
			}
		}
	})
}

// named reports whether the ledger itself names a key.
func named(record rotation.Record, prefix string) bool {
	for _, entry := range record.Retiring {
		if entry.ID == prefix {
			return true
		}
	}
	for _, entry := range record.Pending {
		if entry.Expiration.Equal(noon.Add(87600 * time.Hour)) {
			return true
		}
	}
	return false
}
