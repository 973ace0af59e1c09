package preauthkey

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// outages are what keeps the operator from asking Headscale for the key of an object.
var outages = map[string]func(l *timeline){
	"the endpoint is away": func(l *timeline) { l.api.fails(fmt.Errorf("%w: away", headscale.ErrUnavailable)) },
	"no pod":               func(l *timeline) { l.remove(&corev1.Pod{}, "headscale-0") },
	"no Headscale":         func(l *timeline) { l.remove(&v1beta1.Headscale{}, "headscale") },
	"no user":              func(l *timeline) { l.remove(&v1beta1.HeadscaleUser{}, "alice") },
	"scaled to zero": func(l *timeline) {
		hs := &v1beta1.Headscale{}
		l.Expect(l.client.Get(context.Background(), client.ObjectKey{Namespace: "team", Name: "headscale"}, hs)).To(Succeed())
		hs.Spec.Replicas = ptr.To(int32(0))
		l.Expect(l.client.Update(context.Background(), hs)).To(Succeed())
	},
}

// remove deletes an object of the surroundings.
func (l *timeline) remove(object client.Object, name string) {
	object.SetNamespace("team")
	object.SetName(name)
	l.Expect(l.client.Delete(context.Background(), object)).To(Succeed())
}

// setPolicy changes deletionPolicy.
func (l *timeline) setPolicy(policy v1beta1.DeletionPolicy) {
	key := l.object()
	key.Spec.DeletionPolicy = policy
	l.Expect(l.client.Update(context.Background(), key)).To(Succeed())
}

// secret is the Secret of the object.
func (l *timeline) secret() *corev1.Secret {
	l.t.Helper()
	secret := &corev1.Secret{}
	l.Expect(l.client.Get(context.Background(), l.name, secret)).To(Succeed())
	return secret
}

// addState has a node keep its state in the Secret.
func (l *timeline) addState() {
	secret := l.secret()
	secret.Data["profile-1"] = []byte("state of a node")
	l.Expect(l.client.Update(context.Background(), secret)).To(Succeed())
}

// isGone reports whether the object is.
func (l *timeline) isGone() bool {
	synctest.Wait()
	return apierrors.IsNotFound(l.client.Get(context.Background(), l.name, &v1beta1.HeadscalePreAuthKey{}))
}

// inOutage has an object with a key, and then something that keeps the operator from Headscale; what is
// done meanwhile is done while no operator runs.
func inOutage(t *testing.T, change func(*v1beta1.HeadscalePreAuthKey), check func(l *timeline, name string, meanwhile func(func()))) {
	for name, begin := range outages {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTimeline(t, change)
				defer func() { l.stop() }()
				pass(time.Minute)
				l.atRest()
				check(l, name, func(do func()) {
					l.stop()
					begin(l)
					do()
					l.start()
					pass(time.Minute)
					synctest.Wait()
				})
			})
		})
	}
}

func TestRetainReachesTheSecretWithoutHeadscale(t *testing.T) {
	inOutage(t, func(*v1beta1.HeadscalePreAuthKey) {}, func(l *timeline, _ string, meanwhile func(func())) {
		l.Expect(metav1.IsControlledBy(l.secret(), l.object())).To(BeTrue())
		meanwhile(func() { l.setPolicy(v1beta1.DeletionPolicyRetain) })
		l.Expect(l.secret().OwnerReferences).To(BeEmpty())
		l.Expect(l.object().Finalizers).To(BeEmpty())
		l.Expect(l.text()).NotTo(BeEmpty())
	})
}

func TestRetainAndDeletedAtOnceWithoutHeadscale(t *testing.T) {
	inOutage(t, func(*v1beta1.HeadscalePreAuthKey) {}, func(l *timeline, _ string, meanwhile func(func())) {
		meanwhile(func() {
			l.setPolicy(v1beta1.DeletionPolicyRetain)
			l.Expect(l.client.Delete(context.Background(), l.object())).To(Succeed())
		})
		l.Expect(l.isGone()).To(BeTrue())
		l.Expect(l.secret().OwnerReferences).To(BeEmpty(), "else it would be collected")
		l.Expect(l.text()).NotTo(BeEmpty())
	})
}

func TestAFinalizerStaysWhileTheSecretHasAnOwner(t *testing.T) {
	for name, deleted := range map[string]bool{"changed": false, "changed and deleted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTimeline(t, func(*v1beta1.HeadscalePreAuthKey) {})
				defer func() { l.stop() }()
				pass(time.Minute)
				l.stop()
				l.setPolicy(v1beta1.DeletionPolicyRetain)
				if deleted {
					l.Expect(l.client.Delete(context.Background(), l.object())).To(Succeed())
				}
				l.write = func() error { return errors.New("the API server is away") }
				l.start()
				pass(time.Minute)
				l.Expect(l.object().Finalizers).To(HaveLen(1))
				l.stop()
				l.write = func() error { return nil }
				l.start()
				pass(5 * time.Minute)
				synctest.Wait()
				l.Expect(l.secret().OwnerReferences).To(BeEmpty())
				l.Expect(l.isGone()).To(Equal(deleted))
			})
		})
	}
}

func TestDeleteReachesTheObjectWithoutHeadscale(t *testing.T) {
	retain := func(key *v1beta1.HeadscalePreAuthKey) { key.Spec.DeletionPolicy = v1beta1.DeletionPolicyRetain }
	inOutage(t, retain, func(l *timeline, _ string, meanwhile func(func())) {
		l.Expect(l.object().Finalizers).To(BeEmpty())
		meanwhile(func() { l.setPolicy(v1beta1.DeletionPolicyDelete) })
		l.Expect(l.object().Finalizers).To(HaveLen(1))
		l.Expect(metav1.IsControlledBy(l.secret(), l.object())).To(BeTrue())
	})
}

// What a node wrote while Headscale could not be asked is not collected with the object.
func TestStateThatIsWrittenWithoutHeadscaleStays(t *testing.T) {
	waits := map[string]bool{"the endpoint is away": true, "no pod": true}
	inOutage(t, func(*v1beta1.HeadscalePreAuthKey) {}, func(l *timeline, name string, meanwhile func(func())) {
		meanwhile(l.addState)
		l.Expect(l.secret().OwnerReferences).To(BeEmpty(), "also a deletion in the foreground leaves it")
		meanwhile = func(do func()) { l.stop(); do(); l.start(); pass(3 * time.Minute) }
		meanwhile(func() { l.Expect(l.client.Delete(context.Background(), l.object())).To(Succeed()) })
		l.Expect(l.isGone()).NotTo(Equal(waits[name]))
		if waits[name] {
			return
		}
		l.Expect(l.secret()).To(And(HaveField("OwnerReferences", BeEmpty()), HaveField("Labels", BeEmpty()), HaveField("Annotations", BeEmpty())))
		l.Expect(l.secret().Data).To(HaveLen(1))
	})
}

// A Secret without anything else goes with the object, also where that had become its owner too late.
func TestLeavingASecret(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*corev1.Secret)
		stays  bool
		owned  bool
	}{
		"owned":                  {func(*corev1.Secret) {}, false, true},
		"owned by nobody yet":    {func(s *corev1.Secret) { s.OwnerReferences = nil }, false, true},
		"owned, with a state":    {func(s *corev1.Secret) { s.Data["profile-1"] = []byte("x") }, true, false},
		"with the entry taken":   {func(s *corev1.Secret) { moveEntry(s, "other"); s.Data["key"] = []byte("theirs") }, true, false},
		"without labels":         {func(s *corev1.Secret) { s.Labels = nil; s.OwnerReferences = nil }, false, false},
		"a state without labels": {func(s *corev1.Secret) { s.Labels = nil; s.Data["profile-1"] = []byte("x") }, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTimeline(t, func(*v1beta1.HeadscalePreAuthKey) {})
				pass(time.Minute)
				l.stop()
				secret := l.secret()
				test.change(secret)
				l.Expect(l.client.Update(context.Background(), secret)).To(Succeed())
				stays, err := (&secretStore{key: l.object(), live: l.client, writer: l.client}).leave(context.Background())
				l.Expect(err).NotTo(HaveOccurred())
				l.Expect(stays).To(Equal(test.stays))
				l.Expect(metav1.IsControlledBy(l.secret(), l.object())).To(Equal(test.owned))
				if stays {
					l.Expect(l.secret().Data).To(HaveLen(1))
				}
			})
		})
	}
}
