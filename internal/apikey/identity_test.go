package apikey

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// fakeIdentitySecret is an IdentitySecret in memory.
type fakeIdentitySecret struct {
	lock    sync.Mutex
	secret  *corev1.Secret
	fail    error
	asked   int
	written int
}

func (f *fakeIdentitySecret) Get(context.Context) (*corev1.Secret, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.asked++
	if f.fail != nil {
		return nil, f.fail
	}
	if f.secret == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, "headscale-identity")
	}
	return f.secret.DeepCopy(), nil
}

func (f *fakeIdentitySecret) Create(_ context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.written++
	secret.Name, secret.UID, secret.ResourceVersion = "headscale-identity", "uid", "1"
	f.secret = secret
	return secret, nil
}

func (f *fakeIdentitySecret) Patch(_ context.Context, patch []byte) (*corev1.Secret, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.written++
	var read struct {
		Metadata struct {
			UID             types.UID
			ResourceVersion string
			Annotations     map[string]string
		}
		Data map[string][]byte
	}
	if err := json.Unmarshal(patch, &read); err != nil {
		return nil, err
	}
	if read.Metadata.UID != f.secret.UID || read.Metadata.ResourceVersion != f.secret.ResourceVersion {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, f.secret.Name, errors.New("changed"))
	}
	for entry, key := range read.Data {
		if f.secret.Data == nil {
			f.secret.Data = map[string][]byte{}
		}
		f.secret.Data[entry] = key
	}
	f.secret.Annotations = read.Metadata.Annotations
	return f.secret, nil
}

// change changes the Secret as somebody else.
func (f *fakeIdentitySecret) change(change func(*corev1.Secret)) {
	f.lock.Lock()
	defer f.lock.Unlock()
	change(f.secret)
}

// startIdentity keeps keys of the texts, until the test ends.
func startIdentity(t *testing.T, secret IdentitySecret, keys map[string]string) *gbytes.Buffer {
	t.Helper()
	dir := t.TempDir()
	for name, text := range keys {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := gbytes.NewBuffer()
	identity := &Identity{Secret: secret, Dir: dir, Headscale: "headscale", Log: slog.New(slog.NewTextHandler(log, nil))}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { identity.Start(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return log
}

// letPass lets time pass, in a synctest bubble.
func letPass(length time.Duration) {
	time.Sleep(length) //nolint:forbidigo // In a synctest bubble this takes no time.
	synctest.Wait()
}

const noise, relay = v1beta1.EntryNoiseKey, v1beta1.EntryDERPKey

var olderKey, youngerKey = privateKeyPrefix + strings.Repeat("0a", 32), privateKeyPrefix + strings.Repeat("b1", 32)

func TestIdentityIsKeptOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		secret := &fakeIdentitySecret{}
		log := startIdentity(t, secret, map[string]string{noise: olderKey, relay: youngerKey})
		synctest.Wait()
		g.Expect(secret.secret.Data).To(Equal(map[string][]byte{noise: []byte(olderKey), relay: []byte(youngerKey)}))
		g.Expect(v1beta1.IsIdentitySecret(secret.secret.Labels)).To(BeTrue())
		g.Expect(secret.secret.Labels).To(HaveKeyWithValue("headscale.infrado.cloud/headscale", "headscale"))
		g.Expect(secret.secret.OwnerReferences).To(BeEmpty(), "it outlives its Headscale, as the volume does")
		g.Expect(secret.secret.Annotations).To(HaveKeyWithValue(v1beta1.AnnotationIdentity, relay+"=Kept,"+noise+"=Kept"))

		letPass(24 * time.Hour)
		g.Expect(secret.written).To(Equal(1), "nothing changes")
		g.Expect(secret.asked).To(BeNumerically("<=", 150), "at rest it asks six times an hour")
		g.Expect(strings.Count(string(log.Contents()), "\n")).To(Equal(1))
		g.Expect(string(log.Contents())).NotTo(Or(ContainSubstring(olderKey), ContainSubstring(youngerKey)))
	})
}

func TestIdentityOfAYoungerVolumeReplacesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		secret := &fakeIdentitySecret{secret: &corev1.Secret{}}
		secret.secret.Labels = map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentIdentity}
		secret.secret.Data = map[string][]byte{noise: []byte(olderKey), "theirs": []byte("stays")}
		log := startIdentity(t, secret, map[string]string{noise: youngerKey, relay: youngerKey})
		synctest.Wait()
		g.Expect(secret.secret.Data).To(Equal(map[string][]byte{noise: []byte(olderKey), relay: []byte(youngerKey), "theirs": []byte("stays")}))
		g.Expect(secret.secret.Annotations).To(HaveKeyWithValue(v1beta1.AnnotationIdentity, relay+"=Kept,"+noise+"=Differs"))
		g.Expect(string(log.Contents())).To(ContainSubstring("The data volume has other private keys"))

		// Whoever decides for the volume's key takes the other one away.
		secret.change(func(s *corev1.Secret) { delete(s.Data, noise) })
		letPass(identityDiffersInterval + time.Second)
		g.Expect(secret.secret.Data).To(HaveKeyWithValue(noise, []byte(youngerKey)))
		g.Expect(secret.secret.Annotations).To(HaveKeyWithValue(v1beta1.AnnotationIdentity, relay+"=Kept,"+noise+"=Kept"))
	})
}

func TestIdentityDoesNotTouchASecretOfSomebodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		secret := &fakeIdentitySecret{secret: &corev1.Secret{}}
		log := startIdentity(t, secret, map[string]string{noise: olderKey})
		letPass(time.Hour)
		g.Expect(secret.written).To(BeZero())
		g.Expect(string(log.Contents())).To(ContainSubstring("is left alone"))
	})
}

func TestIdentityTriesAgainAndShowsNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		secret := &fakeIdentitySecret{fail: errors.New("a webhook quotes " + olderKey)}
		log := startIdentity(t, secret, map[string]string{noise: olderKey})
		letPass(time.Hour)
		g.Expect(string(log.Contents())).To(And(ContainSubstring("a webhook quotes"), Not(ContainSubstring(olderKey))))
		secret.lock.Lock()
		secret.fail = nil
		secret.lock.Unlock()
		letPass(2 * identityDiffersInterval)
		g.Expect(secret.secret.Data).To(HaveKey(noise))
	})
}

func TestIdentityKeepsNothingThatIsNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		secret := &fakeIdentitySecret{}
		startIdentity(t, secret, map[string]string{noise: "a token"})
		letPass(time.Hour)
		g.Expect(secret.asked).To(BeZero())
	})
}
