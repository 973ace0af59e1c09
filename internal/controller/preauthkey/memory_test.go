package preauthkey

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// What is known of an object without a finalizer, which may be the text of a key, goes with it.
func TestNothingIsKnownOfAnObjectThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t, func(key *v1beta1.HeadscalePreAuthKey) { key.Spec.DeletionPolicy = v1beta1.DeletionPolicyRetain })
		pass(time.Minute)
		l.stop()
		r := &Reconciler{Client: l.client, Live: l.client, Now: time.Now}
		known := r.memoryOf(l.object())
		l.Expect(r.memoryOf(l.object())).To(BeIdenticalTo(known))
		another := l.object()
		another.UID = "2"
		l.Expect(r.memoryOf(another)).NotTo(BeIdenticalTo(known))
		l.Expect(l.client.Delete(context.Background(), l.object())).To(Succeed())
		_, err := r.Reconcile(context.Background(), reconcile.Request{NamespacedName: l.name})
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(r.remembered).To(BeEmpty())
	})
}

// A key that was used is counted also where something else is why it is replaced.
func TestAUsedKeyIsCountedWhenTheSpecHasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t, func(*v1beta1.HeadscalePreAuthKey) {})
		defer func() { l.stop() }()
		pass(time.Minute)
		l.stop()
		l.api.use()
		key := l.object()
		key.Spec.Reusable = true
		l.Expect(l.client.Update(context.Background(), key)).To(Succeed())
		l.start()
		pass(time.Minute)
		l.atRest()
		l.Expect(l.object().Status.Used).To(BeEquivalentTo(1))
	})
}

// A key that is expired and could not be deleted has no tag any more, and is deleted nevertheless.
func TestAnExpiredKeyThatCannotBeDeletedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t, func(*v1beta1.HeadscalePreAuthKey) {})
		defer func() { l.stop() }()
		pass(time.Minute)
		l.api.lock.Lock()
		l.api.fail = func(call string) error {
			if call == "delete" {
				return &headscale.Refusal{Words: "database is locked"}
			}
			return nil
		}
		l.api.lock.Unlock()
		l.api.use()
		pass(5 * time.Minute)
		l.atRest()
		l.Expect(l.api.keys).To(HaveLen(2))
		l.api.fails(nil)
		pass(5 * time.Minute)
		l.atRest()
		l.Expect(l.api.keys).To(HaveLen(1))
	})
}
