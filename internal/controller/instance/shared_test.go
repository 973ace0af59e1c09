package instance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
)

// world is a cluster with one Headscale, on the clock of a test.
type world struct {
	lock sync.Mutex
	// key, pin and pod are those that Headscale has, and stored those that the Secret has.
	key, stored string
	pin, pinned headscale.Pin
	pod         string
	gone        bool
	// away is the answer to all calls; nil: as usual.
	away  error
	users []headscale.User
	// nodesThere are the nodes, and needsNodes is whether the objects are about those of user 1, too.
	nodesThere []headscale.Node
	needsNodes bool
	// policy is the text of the policy, noPolicy why Headscale does not show it, and needsPolicy whether
	// the objects are about it, too.
	policy      string
	noPolicy    error
	needsPolicy bool
	// concerns is the kind's.
	concerns func(client.Object, Changes) bool
	// objects refer to the Headscale.
	objects []client.Object
	// reading is called when users or nodes were listed, and listing when the objects were; they may be nil.
	reading, listing func()
	// panics is the name of an object with which every question panics.
	panics string

	// lists, nodes, creates, secrets and connections count.
	lists, nodes, creates, secrets, open int
	busy                                 int
}

func newWorld(objects int) *world {
	w := &world{key: "key", stored: "key", pin: headscale.Pin{1}, pinned: headscale.Pin{1}, pod: "pod-1"}
	for i := range objects {
		w.objects = append(w.objects, &v1beta1.HeadscaleUser{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("user-", i)}})
	}
	return w
}

// do changes the world.
func (w *world) do(change func()) {
	w.lock.Lock()
	defer w.lock.Unlock()
	change()
}

// start returns Instances in the world, and what they name as to be reconciled.
func (w *world) start(ctx context.Context) (*Instances, *[]string) {
	in := New(ctx, &Options{Client: w, Live: w, AllNamespaces: true, Now: time.Now, Connect: w.connect})
	var named []string
	events := in.AddKind(&Kind{
		Objects: func(context.Context, client.ObjectKey) ([]client.Object, error) {
			w.lock.Lock()
			defer w.lock.Unlock()
			listed := slices.Clone(w.objects)
			if w.listing != nil {
				w.listing()
			}
			return listed, nil
		},
		Differs: func(object client.Object, before, after *Snapshot) bool {
			if object.GetName() == w.panics {
				panic(w.panics)
			}
			return len(before.UsersNamed(object.GetName())) != len(after.UsersNamed(object.GetName())) ||
				w.needsNodes && len(before.NodesOf(1)) != len(after.NodesOf(1))
		},
		NeedsNodes: func(client.Object) bool { return w.needsNodes }, NeedsPolicy: w.needsPolicy, Concerns: w.concerns,
	})
	go func() {
		for {
			select {
			case e := <-events:
				w.do(func() { named = append(named, nameOf(e)) })
			case <-ctx.Done():
				return
			}
		}
	}()
	return in, &named
}

func nameOf(e event.GenericEvent) string { return e.Object.GetName() }

// pass lets time pass in the bubble of a test, and what is due then be done.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// find finds the Headscale.
func (w *world) find(g Gomega, in *Instances) *Instance {
	found, err := in.Find(context.Background(), "default", client.ObjectKey{Namespace: "default", Name: "headscale"})
	g.Expect(err).NotTo(HaveOccurred())
	return found
}

// Get is a client.Reader's.
func (w *world) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	w.lock.Lock()
	defer w.lock.Unlock()
	object.SetNamespace(key.Namespace)
	object.SetName(key.Name)
	switch object := object.(type) {
	case *v1beta1.Headscale:
		if w.gone {
			return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
		}
	case *corev1.Pod:
		object.UID, object.Status.PodIP = types.UID(w.pod), "192.0.2.1"
		object.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerHeadscale, Ready: w.pod != ""}}
	case *corev1.Secret:
		w.secrets++
		object.Labels = map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey}
		object.Annotations = map[string]string{v1beta1.AnnotationAdminCertificate: w.pinned.String()}
		object.Data = map[string][]byte{v1beta1.SecretDataKey: []byte(w.stored)}
	}
	return nil
}

// List is a client.Reader's.
func (w *world) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// connection is one to the Headscale.
type connection struct {
	API // nil: the calls of which there are no specs here
	*world
	pin headscale.Pin
	key headscale.Key
}

func (w *world) connect(_ string, pin headscale.Pin, key headscale.Key) API {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.open++
	return &connection{world: w, pin: pin, key: key}
}

func (c *connection) Close() error {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.open--
	return nil
}

// call is any call; others have a chance to be made meanwhile, and are not. (It takes no time: who
// waits for a mutex would hold up the clock of the test.)
func (c *connection) call(does func()) error {
	c.lock.Lock()
	c.busy++
	alone := c.busy == 1
	c.lock.Unlock()
	runtime.Gosched()
	c.lock.Lock()
	defer c.lock.Unlock()
	c.busy--
	switch {
	case !alone:
		panic("two calls at once")
	case c.away != nil:
		return c.away
	case c.pin != c.world.pin:
		return headscale.ErrPinMismatch
	case c.key.Reveal() != c.world.key:
		return headscale.ErrUnauthorized
	}
	does()
	return nil
}

func (c *connection) ListUsers(context.Context) (users []headscale.User, err error) {
	err = c.call(func() {
		c.lists++
		users = slices.Clone(c.users)
		if c.reading != nil {
			c.reading()
		}
	})
	return users, err
}

func (c *connection) ListNodes(context.Context) (nodes []headscale.Node, err error) {
	err = c.call(func() {
		c.nodes++
		nodes = slices.Clone(c.nodesThere)
		if c.reading != nil {
			c.reading()
		}
	})
	return nodes, err
}

func (c *connection) GetPolicy(context.Context) (policy headscale.Policy, err error) {
	refused := error(nil)
	err = c.call(func() { policy.Text, refused = c.policy, c.noPolicy })
	return policy, errors.Join(err, refused)
}

func (c *connection) SetPolicy(_ context.Context, text string) (policy headscale.Policy, err error) {
	err = c.call(func() { c.policy, policy.Text = text, text })
	return policy, err
}

func (c *connection) CreateUser(_ context.Context, user headscale.NewUser) (made headscale.User, err error) {
	err = c.call(func() {
		c.creates++
		made = headscale.User{ID: uint64(len(c.users) + 1), Name: user.Name}
		c.users = append(c.users, made)
	})
	return made, err
}

func (c *connection) RenameUser(context.Context, uint64, string) (headscale.User, error) {
	return headscale.User{}, errors.New("not in this test")
}

func (c *connection) DeleteUser(context.Context, uint64) error { return errors.New("not in this test") }

// createAll creates a user for each object, each from a goroutine of its own.
func (w *world) createAll(g Gomega, in *Instances) {
	var group sync.WaitGroup
	for _, object := range w.objects {
		group.Go(func() {
			instance := w.find(g, in)
			snapshot, err := instance.Snapshot(context.Background())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(snapshot.UsersNamed(object.GetName())).To(BeEmpty())
			g.Expect(instance.Write(context.Background(), func(ctx context.Context, api API, snapshot *Snapshot) error {
				made, err := api.CreateUser(ctx, headscale.NewUser{Name: object.GetName()})
				snapshot.PutUser(made)
				return err
			})).To(Succeed())
		})
	}
	group.Wait()
}

func TestManyObjectsShareOneSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w := newWorld(1000)
		in, named := w.start(ctx)
		w.createAll(g, in)
		g.Expect(w.lists).To(Equal(1), "what the operator writes itself is known")
		g.Expect(w.creates).To(Equal(1000))
		g.Expect(w.secrets).To(Equal(1))

		pass(5 * time.Minute)
		w.do(func() { g.Expect(w.lists).To(BeNumerically("~", 10, 1), "one in 30 s") })
		w.do(func() { g.Expect(w.nodes).To(BeZero(), "nobody needs them") })
		w.do(func() { g.Expect(w.secrets).To(Equal(1), "the key is in memory") })
		w.do(func() { g.Expect(*named).To(BeEmpty()) })

		// Somebody deletes one.
		w.do(func() { w.users = w.users[1:] })
		pass(30 * time.Second)
		w.do(func() { g.Expect(*named).To(HaveLen(1)) })

		// The last object goes.
		w.do(func() { w.objects = nil })
		pass(31 * time.Second)
		before := 0
		w.do(func() { before = w.lists; g.Expect(w.open).To(BeZero(), "no connection, and no key") })
		pass(time.Hour)
		w.do(func() { g.Expect(w.lists).To(Equal(before)) })
	})
}

func TestKeyIsReadAgainWhenItIsRefused(t *testing.T) {
	for name, change := range map[string]func(*world){
		"another key":         func(w *world) { w.key, w.stored = "new", "new" },
		"another certificate": func(w *world) { w.pin, w.pinned = headscale.Pin{2}, headscale.Pin{2} },
		"another pod":         func(w *world) { w.pod = "pod-2"; w.pin, w.pinned = headscale.Pin{2}, headscale.Pin{2} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				w := newWorld(3)
				in, named := w.start(ctx)
				w.createAll(g, in)
				w.do(func() { change(w) })
				if strings.Contains(name, "pod") {
					_, err := w.find(g, in).Snapshot(ctx)
					g.Expect(err).NotTo(HaveOccurred())
				}
				pass(31 * time.Second)
				w.do(func() {
					g.Expect(w.secrets).To(Equal(2))
					g.Expect(w.open).To(Equal(1))
					g.Expect(*named).To(BeEmpty(), "nobody notices")
				})
			})
		})
	}
}

func TestOneTimerTriesAgain(t *testing.T) {
	for name, test := range map[string]struct {
		breaks, mends func(*world)
		reason        string
	}{
		"nobody answers":             {func(w *world) { w.away = fmt.Errorf("%w: refused", headscale.ErrUnavailable) }, func(w *world) { w.away = nil }, v1beta1.ReasonEndpointUnreachable},
		"the key is wrong":           {func(w *world) { w.key = "other" }, func(w *world) { w.key = "key" }, v1beta1.ReasonKeyRefused},
		"the certificate is another": {func(w *world) { w.pin = headscale.Pin{3} }, func(w *world) { w.pin = headscale.Pin{1} }, v1beta1.ReasonEndpointUnreachable},
		"the Secret is empty":        {func(w *world) { w.stored, w.key = "", "x" }, func(w *world) { w.stored, w.key = "x", "x" }, v1beta1.ReasonNotReady},
		"the release cannot":         {func(w *world) { w.away = headscale.ErrUnsupported }, func(w *world) { w.away = nil }, v1beta1.ReasonUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				w := newWorld(100)
				in, named := w.start(ctx)
				w.createAll(g, in)
				w.do(func() { test.breaks(w) })
				pass(31 * time.Second)
				w.do(func() { g.Expect(*named).To(HaveLen(100), "all are told"); *named = nil })
				began := w.secrets
				for range 100 {
					_, err := w.find(g, in).Snapshot(ctx)
					var problem *Problem
					g.Expect(errors.As(err, &problem)).To(BeTrue())
					g.Expect(problem.Because).To(Equal(test.reason))
				}
				w.do(func() { g.Expect(w.secrets).To(Equal(began), "nobody but the timer asks") })
				pass(5 * time.Minute)
				w.do(func() { g.Expect(*named).To(BeEmpty(), "they know"); test.mends(w) })
				pass(31 * time.Second)
				w.do(func() { g.Expect(*named).To(HaveLen(100)) })
				_, err := w.find(g, in).Snapshot(ctx)
				g.Expect(err).NotTo(HaveOccurred())
			})
		})
	}
}

// Also one whose pod was not ready is forgotten when nothing refers to it any more.
func TestHeadscaleThatIsNotReadyIsForgotten(t *testing.T) {
	inWorld(t, 1, func(g Gomega, w *world, _ *Instances, _ *[]string) {
		w.do(func() { w.pod = "" })
		pass(31 * time.Second)
		w.do(func() { w.objects = nil })
		pass(31 * time.Second)
		w.do(func() { g.Expect(w.open).To(BeZero(), "no connection, and no key") })
	})
}

// An object that comes while its Headscale is forgotten is enqueued, so that the Headscale is polled again.
func TestObjectThatComesMeanwhile(t *testing.T) {
	inWorld(t, 1, func(g Gomega, w *world, _ *Instances, named *[]string) {
		comes := w.objects
		w.do(func() { w.objects, w.listing = nil, func() { w.objects = comes } })
		pass(31 * time.Second)
		w.do(func() {
			g.Expect(w.open).To(BeZero(), "it is forgotten")
			g.Expect(*named).To(Equal([]string{comes[0].GetName()}))
		})
	})
}

func TestHeadscaleThatIsGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w := newWorld(1)
		in, named := w.start(ctx)
		w.createAll(g, in)
		w.do(func() { w.gone = true })
		pass(31 * time.Second)
		w.do(func() {
			g.Expect(w.open).To(BeZero())
			g.Expect(*named).To(BeEmpty(), "a watch has told them")
		})
		g.Expect(w.find(g, in).CheckUsers()).To(MatchError("There is no Headscale default/headscale"))
	})
}

// The key is in no text that is made of what the operator keeps.
func TestKeyIsNotPrinted(t *testing.T) {
	g := NewWithT(t)
	key := headscale.NewKey("hskey-api-abcdefghijkl-" + strings.Repeat("s", 64))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		text := fmt.Sprintf(verb, shared{credentials: credentials{key: key}})
		g.Expect(text).NotTo(ContainSubstring("sss"))
		g.Expect(text).NotTo(ContainSubstring("737373"))
	}
}
