package preauthkey

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	recorder "k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
)

// memoryAPI is a Headscale in memory, of a clock that stands still but for synctest.
type memoryAPI struct {
	instance.API // nil: the calls of which there are none here

	lock    sync.Mutex
	created uint64
	keys    []headscale.PreAuthKey
	// texts are whole, by ids.
	texts map[uint64]string
	user  headscale.User
	// fail is asked before a call, and lost after it; an error is the answer.
	fail, lost func(call string) error
}

func (m *memoryAPI) call(name string, do func()) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	if err := m.fail(name); err != nil {
		return err
	}
	do()
	return m.lost(name)
}

func (m *memoryAPI) ListUsers(context.Context) (users []headscale.User, err error) {
	return users, m.call("users", func() { users = append(users, m.user) })
}

func (m *memoryAPI) ListNodes(context.Context) ([]headscale.Node, error) { return nil, nil }

func (m *memoryAPI) GetPolicy(context.Context) (headscale.Policy, error) {
	return headscale.Policy{}, headscale.ErrNoPolicy
}

func (m *memoryAPI) Close() error { return nil }

func (m *memoryAPI) ListPreAuthKeys(context.Context, []uint64) (keys []headscale.PreAuthKey, err error) {
	return keys, m.call("list", func() { keys = slices.Clone(m.keys) })
}

func (m *memoryAPI) CreatePreAuthKey(_ context.Context, key headscale.NewPreAuthKey) (made headscale.PreAuthKey, err error) {
	return made, m.call("create", func() {
		m.created++
		text := fmt.Sprintf("hskey-auth-%012d-%s", m.created, strings.Repeat("s", 64))
		now, expiration := time.Now(), key.Expiration.Truncate(time.Microsecond)
		made = headscale.PreAuthKey{ID: m.created, UserID: key.UserID, Reusable: key.Reusable, Expiration: &expiration, CreatedAt: &now, Tags: key.Tags}
		listed := made
		listed.Key, made.Key = headscale.NewKey(text[:len(text)-64]+"***"), headscale.NewKey(text)
		m.keys, m.texts[made.ID] = append(m.keys, listed), text
	})
}

func (m *memoryAPI) ExpirePreAuthKey(_ context.Context, key headscale.PreAuthKey) error {
	return m.call("expire", func() {
		now := time.Now()
		for i := range m.keys {
			if m.keys[i].ID == key.ID {
				m.keys[i].Expiration = &now
			}
		}
	})
}

func (m *memoryAPI) DeletePreAuthKey(_ context.Context, id uint64) error {
	return m.call("delete", func() {
		m.keys = slices.DeleteFunc(m.keys, func(key headscale.PreAuthKey) bool { return key.ID == id })
	})
}

// valid are the texts of keys that can be used.
func (m *memoryAPI) valid() []string {
	m.lock.Lock()
	defer m.lock.Unlock()
	var texts []string
	for i := range m.keys {
		if key := &m.keys[i]; !key.Used && key.Expiration.After(time.Now()) && key.UserID == m.user.ID {
			texts = append(texts, m.texts[key.ID])
		}
	}
	return texts
}

// use has every key used up.
func (m *memoryAPI) use() {
	m.lock.Lock()
	defer m.lock.Unlock()
	for i := range m.keys {
		m.keys[i].Used = true
	}
}

// fails has every call fail from now on; nil: none.
func (m *memoryAPI) fails(err error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.fail = func(string) error { return err }
}

// timeline is an object and its operator.
type timeline struct {
	*WithT
	t      *testing.T
	api    *memoryAPI
	client client.WithWatch
	write  func() error
	stop   func()
	look   chan struct{}
	name   client.ObjectKey
}

// newTimeline starts one, in a bubble.
func newTimeline(t *testing.T, change func(*v1beta1.HeadscalePreAuthKey)) *timeline {
	none := func(string) error { return nil }
	l := &timeline{WithT: NewWithT(t), t: t, look: make(chan struct{}), write: func() error { return nil }, api: &memoryAPI{
		texts: map[uint64]string{}, fail: none, lost: none, user: headscale.User{ID: 1, Name: "alice", CreatedAt: time.Now()},
	}}
	s := runtime.NewScheme()
	l.Expect(clientgoscheme.AddToScheme(s)).To(Succeed())
	l.Expect(v1beta1.AddToScheme(s)).To(Succeed())
	key := object("web", "1")
	change(key)
	l.name = keyOf(key)
	l.client = fake.NewClientBuilder().WithScheme(s).WithStatusSubresource(&v1beta1.HeadscalePreAuthKey{}).
		WithIndex(&v1beta1.HeadscalePreAuthKey{}, index, indexed).WithObjects(append(surroundings(l.api.user), key)...).
		WithInterceptorFuncs(interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
				return errors.Join(l.write(), c.Create(ctx, o, options...))
			},
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, options ...client.PatchOption) error {
				if _, is := o.(*corev1.Secret); is {
					if err := l.write(); err != nil {
						return err
					}
				}
				return c.Patch(ctx, o, patch, options...)
			},
		}).Build()
	l.start()
	return l
}

// surroundings are what an object finds: its Headscale, with a pod and a key, and its user.
func surroundings(user headscale.User) []client.Object {
	created := metav1.NewTime(user.CreatedAt)
	return []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}},
		&v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "headscale"}, Spec: v1beta1.HeadscaleSpec{Version: "v0.29.3"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "headscale-0"}, Status: corev1.PodStatus{
			PodIP: "192.0.2.1", ContainerStatuses: []corev1.ContainerStatus{{Name: resources.ContainerHeadscale, Ready: true}},
		}},
		instancetest.Secret("team", "x"),
		&v1beta1.HeadscaleUser{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "alice"}, Spec: v1beta1.HeadscaleUserSpec{HeadscaleRef: "headscale"},
			Status: v1beta1.HeadscaleUserStatus{UserID: user.ID, CreatedAt: &created},
		},
	}
}

// start starts an operator, which knows nothing of what another one before it knew.
func (l *timeline) start() { l.startWith(l.client) }

// startWith starts one that reads by another client what it reads from a cache.
func (l *timeline) startWith(cached client.Client) {
	ctx, stop := context.WithCancel(context.Background())
	r := &Reconciler{Client: cached, Live: l.client, Now: time.Now, Events: &recorder.FakeRecorder{}}
	r.Instances = instance.New(ctx, &instance.Options{
		Client: cached, Live: l.client, AllNamespaces: true, Now: time.Now,
		Connect: func(string, headscale.Pin, headscale.Key) instance.API { return l.api },
	})
	looked := r.Instances.AddKind(r.kind())
	done := make(chan struct{})
	l.stop = func() { stop(); <-done }
	go func() {
		defer close(done)
		again := time.NewTimer(0)
		for {
			select {
			case <-ctx.Done():
				return
			case <-looked:
			case <-l.look:
			case <-again.C:
			}
			result, err := r.Reconcile(ctx, reconcile.Request{NamespacedName: l.name})
			if err != nil {
				result.RequeueAfter = time.Second
			}
			if result.RequeueAfter > 0 {
				again.Reset(result.RequeueAfter)
			}
		}
	}()
}

// restart stops the operator and starts another one.
func (l *timeline) restart() {
	l.stop()
	l.start()
}

// object is the HeadscalePreAuthKey.
func (l *timeline) object() *v1beta1.HeadscalePreAuthKey {
	l.t.Helper()
	key := &v1beta1.HeadscalePreAuthKey{}
	l.Expect(l.client.Get(context.Background(), l.name, key)).To(Succeed())
	return key
}

// works reports whether the key in the Secret can be used.
func (l *timeline) works() bool {
	text := l.text()
	return text != "" && slices.Contains(l.api.valid(), text)
}

// text is what is in the Secret, "" where there is none.
func (l *timeline) text() string {
	secret := &corev1.Secret{}
	if err := l.client.Get(context.Background(), l.name, secret); err != nil {
		return ""
	}
	return string(secret.Data["key"])
}

// pass lets time go by in the bubble, where nothing waits for it.
func pass(length time.Duration) { <-time.After(length) }

// atRest is the promise.
func (l *timeline) atRest() {
	l.t.Helper()
	synctest.Wait()
	l.Expect(l.api.valid()).To(ConsistOf(l.text()))
}

func TestAWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t, func(key *v1beta1.HeadscalePreAuthKey) { key.Spec.Expiration = "24h" })
		defer func() { l.stop() }()
		for range 7 * 24 {
			pass(time.Hour)
			l.atRest()
		}
		l.Expect(l.api.created).To(BeNumerically("~", 7*24/16, 2))
		l.Expect(l.api.keys).To(HaveLen(1), "what was replaced and no node has used is deleted")
	})
}

func TestARevocationDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t, func(key *v1beta1.HeadscalePreAuthKey) { key.Spec.RevocationDelay = "5m" })
		defer func() { l.stop() }()
		pass(41 * time.Minute)
		synctest.Wait()
		l.Expect(l.works()).To(BeTrue())
		l.Expect(l.api.valid()).To(HaveLen(2))
		pass(5 * time.Minute)
		l.atRest()
	})
}

func TestAUsedKeyIsReplacedWithinHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t, func(*v1beta1.HeadscalePreAuthKey) {})
		defer func() { l.stop() }()
		for range 100 {
			pass(7 * time.Second)
			l.api.use()
			pass(31 * time.Second)
			l.atRest()
		}
		l.Expect(l.api.keys).To(HaveLen(1), "a used key whose node is gone is deleted")
		l.Expect(l.object().Status.Used).To(BeEquivalentTo(100))
	})
}

func TestAKeyThatIsOverStaysSo(t *testing.T) {
	away := fmt.Errorf("%w: away", headscale.ErrUnavailable)
	for name, test := range map[string]struct {
		end  func(l *timeline)
		used int64
	}{
		"used":                      {func(l *timeline) { l.api.use(); pass(31 * time.Second) }, 1},
		"expired":                   {func(*timeline) { pass(time.Hour) }, 0},
		"expired during the outage": {func(*timeline) {}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTimeline(t, func(key *v1beta1.HeadscalePreAuthKey) { key.Spec.Reissue = v1beta1.ReissueNever })
				defer func() { l.stop() }()
				pass(time.Minute)
				l.Expect(l.works()).To(BeTrue())
				test.end(l)
				for range 3 {
					l.api.fails(away)
					pass(64 * time.Minute)
					l.Expect(l.object().IsOver()).To(BeTrue())
					l.Expect(instancetest.Ready(l.object().Status.Conditions)).To(HavePrefix("False "))
					secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: l.name.Namespace, Name: l.name.Name}}
					l.Expect(client.IgnoreNotFound(l.client.Delete(context.Background(), secret))).To(Succeed())
					l.api.fails(nil)
					l.restart()
					pass(10 * time.Minute)
					synctest.Wait()
					l.Expect(instancetest.Ready(l.object().Status.Conditions)).To(HavePrefix("True Used: "))
				}
				l.Expect(l.api.created).To(BeEquivalentTo(1))
				l.Expect(l.object().Status.Used).To(Equal(test.used))
			})
		})
	}
}

func TestAUsedKeyIsCountedOnceAlsoWhenItIsReplacedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTimeline(t, func(key *v1beta1.HeadscalePreAuthKey) { key.Spec.Reissue = v1beta1.ReissueNever })
		defer func() { l.stop() }()
		pass(time.Minute)
		l.api.use()
		pass(31 * time.Second)
		key := l.object()
		key.Spec.Reissue = v1beta1.ReissueAlways
		l.Expect(l.client.Update(context.Background(), key)).To(Succeed())
		l.restart() // no watch tells this operator
		pass(time.Minute)
		l.atRest()
		l.Expect(l.object().Status).To(And(HaveField("Used", BeEquivalentTo(1)), HaveField("Over", BeFalse())))
	})
}

func TestEverythingFailsNowAndThen(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTimeline(t, func(*v1beta1.HeadscalePreAuthKey) {})
				defer func() { l.stop() }()
				chance, pauses := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
				var lock sync.Mutex
				now := func(err error) error {
					lock.Lock()
					defer lock.Unlock()
					if chance.IntN(4) == 0 {
						return err
					}
					return nil
				}
				away := fmt.Errorf("%w: away", headscale.ErrUnavailable)
				faults := func(on bool) {
					l.api.lock.Lock()
					defer l.api.lock.Unlock()
					l.api.fail, l.api.lost = func(string) error { return nil }, func(string) error { return nil }
					l.write = func() error { return nil }
					if on {
						l.api.fail, l.api.lost = func(string) error { return now(away) }, func(string) error { return now(away) }
						l.write = func() error { return now(errors.New("the API server is away")) }
					}
				}
				for range 4 {
					l.stop()
					faults(true)
					l.start()
					pass(time.Duration(pauses.IntN(1800)) * time.Second)
					l.restart()
					pass(time.Duration(pauses.IntN(60)) * time.Second)
					l.stop()
					faults(false)
					l.start()
					pass(5 * time.Minute)
					l.atRest()
				}
			})
		})
	}
}
