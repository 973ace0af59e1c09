package apikey

import (
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// ownerBefore and ownerAfter are two Headscales of one name.
var ownerBefore, ownerAfter = &Owner{Name: "headscale", UID: "1"}, &Owner{Name: "headscale", UID: "2"}

// ownedBy is what a Secret says of its owner.
func ownedBy(owner *Owner) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "headscale.infrado.cloud/v1beta1", Kind: "Headscale", Name: owner.Name, UID: owner.UID}}
}

func TestTheSecretIsOwnedFromItsBirthOn(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.owner = ownerBefore
		var atBirth []metav1.OwnerReference
		w.secrets.fail = func(verb string, secret *corev1.Secret) error {
			if verb == "create" {
				atBirth = secret.OwnerReferences
			}
			return nil
		}
		w.start()
		w.Expect(atBirth).To(Equal(ownedBy(ownerBefore)))
		w.pass(30 * day)
		w.atRest()
		w.Expect(w.secrets.now().OwnerReferences).To(Equal(ownedBy(ownerBefore)), "after rotations")
		w.secrets.edit(removed)
		synctest.Wait()
		w.atRest()
		w.Expect(w.secrets.now().OwnerReferences).To(Equal(ownedBy(ownerBefore)), "made anew")
	})
}

func TestWithoutAnOwnerTheSecretHasNone(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start().atRest()
		w.Expect(w.secrets.now().OwnerReferences).To(BeEmpty())
	})
}

func TestTheOwnersOfASecretThatIsThereAreLeftAlone(t *testing.T) {
	another := []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "theirs", UID: "3"}}
	for name, owners := range map[string][]metav1.OwnerReference{"none": nil, "another": another, "one of before": ownedBy(ownerBefore)} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, defaults, func(w *world) {
				w.secrets.edit(func(*corev1.Secret) *corev1.Secret {
					secret := WriteRecord(rotation.Record{}, &corev1.Secret{})
					secret.OwnerReferences = owners
					return secret
				})
				w.owner = ownerAfter
				w.start().pass(30 * day)
				w.atRest()
				w.Expect(w.secrets.now().OwnerReferences).To(Equal(owners))
			})
		})
	}
}

// The garbage collector may come before or after the new manager, and the old one may
// still be there to make the Secret anew.
func TestAHeadscaleMadeAnewGetsASecretOfItsOwn(t *testing.T) {
	for name, dying := range map[string]func(w *world){
		"collected late": func(*world) {},
		"made anew by the manager that is being stopped": func(w *world) {
			w.pass(time.Minute)
			w.secrets.edit(removed)
			synctest.Wait()
			w.Expect(w.secrets.now().OwnerReferences).To(Equal(ownedBy(ownerBefore)))
		},
		"collected before the new manager starts": func(w *world) {
			w.stop()
			w.secrets.edit(removed)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, defaults, func(w *world) {
				w.owner = ownerBefore
				w.start()
				first := w.key()
				dying(w)
				w.stop()
				w.owner = ownerAfter
				w.start().pass(time.Minute)
				w.atRest()
				if w.secrets.now().OwnerReferences[0].UID == ownerBefore.UID {
					w.secrets.edit(removed)
					synctest.Wait()
				}
				w.atRest()
				w.Expect(w.secrets.now().OwnerReferences).To(Equal(ownedBy(ownerAfter)))
				w.Expect(w.headscale.accepts(first)).To(BeFalse())
				w.Expect(w.secrets.now().Labels).To(HaveKeyWithValue(v1beta1.LabelComponent, v1beta1.ComponentAPIKey))
			})
		})
	}
}
