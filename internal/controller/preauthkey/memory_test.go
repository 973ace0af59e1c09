package preauthkey

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
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

// A Secret may be deleted when its key was used, and Headscale was not read since.
func TestAKeyThatWasUsedMeanwhileStaysOver(t *testing.T) {
	never := func(key *v1beta1.HeadscalePreAuthKey) { key.Spec.Reissue = v1beta1.ReissueNever }
	for name, test := range map[string]struct {
		use     func(l *timeline)
		created int
		ready   string
	}{
		"used":     {func(l *timeline) { l.api.use() }, 1, "True Used: "},
		"not used": {func(*timeline) {}, 2, "True Ready: "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTimeline(t, never)
				defer func() { l.stop() }()
				pass(70 * time.Second) // It was read a few seconds ago.
				test.use(l)
				l.Expect(l.client.Delete(context.Background(), l.secret())).To(Succeed())
				l.look <- struct{}{}
				synctest.Wait()
				l.Expect(l.api.created).To(BeEquivalentTo(test.created))
				pass(time.Minute)
				synctest.Wait()
				l.Expect(instancetest.Ready(l.object().Status.Conditions)).To(HavePrefix(test.ready))
				l.Expect(l.api.created).To(BeEquivalentTo(test.created))
			})
		})
	}
}

// The deletion of a Secret may be seen before the status that says that its key is over.
func TestAKeyThatIsOverStaysSoWhereTheCacheIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t, func(key *v1beta1.HeadscalePreAuthKey) { key.Spec.Reissue = v1beta1.ReissueNever })
		defer func() { l.stop() }()
		pass(time.Minute)
		var before atomic.Pointer[v1beta1.HeadscalePreAuthKey]
		stale := l.object()
		stale.ResourceVersion, stale.Status = "1", v1beta1.HeadscalePreAuthKeyStatus{}
		before.Store(stale)
		l.api.use()
		pass(time.Minute)
		l.Expect(l.object().Status.Over).To(BeTrue())
		l.stop()
		l.Expect(l.client.Delete(context.Background(), l.secret())).To(Succeed())

		behind := interceptor.NewClient(l.client, interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
				cached, is := object.(*v1beta1.HeadscalePreAuthKey)
				if stale := before.Load(); is && stale != nil {
					stale.DeepCopyInto(cached)
					return nil
				}
				return c.Get(ctx, key, object, options...)
			},
		})
		l.startWith(behind)
		pass(time.Minute)
		synctest.Wait()
		l.Expect(l.api.created).To(BeEquivalentTo(1))
		before.Store(nil)
		pass(time.Minute)
		synctest.Wait()
		l.Expect(instancetest.Ready(l.object().Status.Conditions)).To(HavePrefix("True Used: "))
		l.Expect(l.api.created).To(BeEquivalentTo(1))
	})
}
