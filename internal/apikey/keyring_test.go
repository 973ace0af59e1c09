package apikey

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// fakeKeyring remembers which keys it was told to accept, by prefix.
type fakeKeyring struct {
	mutex sync.Mutex
	keys  map[string]string
}

func newFakeKeyring() *fakeKeyring { return &fakeKeyring{keys: map[string]string{}} }

func (f *fakeKeyring) Accept(prefix string, key headscale.Key, _ time.Time) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.keys[prefix] = key.Reveal()
}

func (f *fakeKeyring) Refuse(prefix string) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	delete(f.keys, prefix)
}

func (f *fakeKeyring) Listed(listed []headscale.APIKey) {
	known := map[string]bool{}
	for i := range listed {
		known[listed[i].Prefix] = listed[i].Expiration.After(time.Now())
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	maps.DeleteFunc(f.keys, func(prefix, _ string) bool { return !known[prefix] })
}

// accepted are the texts of the keys.
func (f *fakeKeyring) accepted() []string {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return slices.Collect(maps.Values(f.keys))
}

func (f *fakeKeyring) accepts(text []byte) bool { return slices.Contains(f.accepted(), string(text)) }

// TestWhoReadsTheSecretIsAccepted has every write and every revocation looked at.
func TestWhoReadsTheSecretIsAccepted(t *testing.T) {
	settings := rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute, RevocationDelay: 10 * time.Minute}
	inWorld(t, settings, func(w *world) {
		keyring := newFakeKeyring()
		w.keyring, w.certificate = keyring, "one"
		w.secrets.fail = func(verb string, secret *corev1.Secret) error {
			if verb == "create" || verb == "update" {
				if text := secret.Data[v1beta1.SecretDataKey]; len(text) > 0 {
					w.Expect(keyring.accepts(text)).To(BeTrue(), "before it can be read")
				}
			}
			return nil
		}
		w.headscale.failExpire = func() error {
			w.Expect(keyring.accepted()).To(HaveLen(1), "the old key is refused before Headscale is told")
			return nil
		}
		w.start().pass(time.Minute)
		first := w.key()
		w.Expect(keyring.accepts(first)).To(BeTrue())
		w.Expect(w.note(v1beta1.AnnotationAdminCertificate)).To(Equal("one"))

		w.pass(31 * time.Minute)
		w.Expect(w.key()).NotTo(Equal(first))
		w.Expect(keyring.accepts(first)).To(BeTrue(), "during the delay")
		w.Expect(keyring.accepts(w.key())).To(BeTrue())
		w.pass(11 * time.Minute)
		w.Expect(keyring.accepts(first)).To(BeFalse())
		w.atRest()
	})
}

func TestTheCertificateOfTheAdminEndpoint(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.certificate = "one"
		w.start().pass(time.Minute)
		w.Expect(w.note(v1beta1.AnnotationAdminCertificate)).To(Equal("one"))
		key := w.key()
		for _, next := range []string{"two", ""} {
			w.stop()
			w.certificate = next
			w.start().pass(time.Minute)
			w.Expect(w.note(v1beta1.AnnotationAdminCertificate)).To(Equal(next))
			version := w.secrets.now().ResourceVersion
			w.pass(3 * time.Hour)
			w.Expect(w.secrets.now().ResourceVersion).To(Equal(version), "no write at rest")
			w.Expect(w.key()).To(Equal(key))
		}
		w.Expect(w.secrets.now().Annotations).NotTo(HaveKey(v1beta1.AnnotationAdminCertificate))
		w.Expect(w.lines("Wrote the certificate of the admin endpoint")).To(Equal(2))
	})
}

func TestTwoManagersDoNotReplaceEachOthersCertificateForEver(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.certificate = "one"
		w.start().pass(time.Minute)
		written := 0
		for range 10 {
			w.secrets.edit(edited(func(s *corev1.Secret) { s.Annotations[v1beta1.AnnotationAdminCertificate] = "other" }))
			w.pass(time.Minute)
			if w.note(v1beta1.AnnotationAdminCertificate) == "one" {
				written++
			}
		}
		w.Expect(written).To(And(BeNumerically(">=", certificateBurst-1), BeNumerically("<=", certificateBurst)))
		w.pass(certificateInterval + time.Hour)
		w.Expect(w.note(v1beta1.AnnotationAdminCertificate)).To(Equal("one"), "when the other one is gone")
	})
}

func TestWritesThatFailDoNotDelayTheCertificate(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.certificate = "one"
		w.start().pass(time.Minute)
		w.stop()
		failures := 0
		w.secrets.fail = func(verb string, _ *corev1.Secret) error {
			if verb != "update" || failures > 2*certificateBurst {
				return nil
			}
			failures++
			return errors.New("a webhook is away")
		}
		w.certificate = "two"
		w.start().pass(2 * time.Minute)
		w.Expect(failures).To(BeNumerically(">", 2*certificateBurst))
		w.Expect(w.note(v1beta1.AnnotationAdminCertificate)).To(Equal("two"))
	})
}

func TestARevokedKeyIsRefusedWhileTheAPIServerIsAway(t *testing.T) {
	keyring := newFakeKeyring()
	keyring.keys["a"] = "text"
	admin := keyedAdmin{newFakeHeadscale(time.Now), keyring}
	admin.Admin.(*fakeHeadscale).failList = func() error { return errors.New("away") } //nolint:errcheck // it is one
	g := NewWithT(t)
	_, err := admin.ListAPIKeys(context.Background())
	g.Expect(err).To(HaveOccurred())
	g.Expect(keyring.accepted()).To(HaveLen(1))
	admin.Admin.(*fakeHeadscale).failList = nil //nolint:errcheck // it is one
	_, err = admin.ListAPIKeys(context.Background())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(keyring.accepted()).To(BeEmpty())
}
