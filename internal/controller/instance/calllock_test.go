package instance

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx := context.Background()
		calls := newCallLock()
		g.Expect(calls.tryWait(ctx, time.Now)).To(Succeed())
		pass(slowAfter / 2)

		// Who waits for one that takes long is told so, unless it is patient, and no later than that.
		began := time.Now()
		results := make(chan error, 1)
		go func() { results <- calls.wait(ctx, time.Now) }()
		g.Expect(calls.tryWait(ctx, time.Now)).To(MatchError(errBusy))
		g.Expect(time.Since(began)).To(Equal(slowAfter / 2))
		g.Expect(calls.tryWait(ctx, time.Now)).To(MatchError(errBusy))
		g.Expect(time.Since(began)).To(Equal(slowAfter / 2))
		pass(time.Hour)
		calls.release(time.Now())
		g.Expect(<-results).To(Succeed())

		// A context ends either.
		limited, cancel := context.WithTimeout(ctx, time.Second/2)
		defer cancel()
		g.Expect(calls.tryWait(limited, time.Now)).To(MatchError(context.DeadlineExceeded))
		g.Expect(calls.wait(limited, time.Now)).To(MatchError(context.DeadlineExceeded))

		// It is slow until it was quick for some times.
		calls.release(time.Now())
		for range quickCalls - 1 {
			g.Expect(calls.isSlow(time.Now())).To(BeTrue())
			g.Expect(calls.tryWait(ctx, time.Now)).To(Succeed())
			calls.release(time.Now())
		}
		g.Expect(calls.isSlow(time.Now())).To(BeFalse())
	})
}

// A waiter that is told that it takes long is not told so of many that are quick.
func TestManyQuickTurnsAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		calls := newCallLock()
		results := make(chan error)
		for range 100 {
			go func() {
				err := calls.tryWait(context.Background(), time.Now)
				if err == nil {
					<-time.After(slowAfter / 2)
					calls.release(time.Now())
				}
				results <- err
			}()
		}
		for range 100 {
			g.Expect(<-results).To(Succeed())
		}
	})
}

// queue is a controller of a kind: workers that reconcile what is named, and what has to be again.
type queue struct {
	in      *Instances
	kind    *Kind
	pending chan client.Object
	// doing is what a reconcile does, which is given up where it fails.
	doing func(*Instance, client.Object) error
}

// empty is a connection to a Headscale without users.
type empty struct{ API }

func (empty) ListUsers(context.Context) ([]headscale.User, error) { return nil, nil }

func (empty) Close() error { return nil }

func connectEmpty(string, headscale.Pin, headscale.Key) API { return empty{} }

// newQueue starts a controller with workers.
func newQueue(ctx context.Context, w *world, workers int, doing func(*Instance, client.Object) error) *queue {
	q := &queue{pending: make(chan client.Object, 10000), doing: doing}
	q.in = New(ctx, &Options{Client: w, Live: w, AllNamespaces: true, Now: time.Now, Connect: connectEmpty})
	q.kind = &Kind{
		Workers: workers, Objects: func(_ context.Context, of client.ObjectKey) ([]client.Object, error) {
			return []client.Object{named(of.Namespace, 0)}, nil
		},
		Differs: func(client.Object, *Snapshot, *Snapshot) bool { return false }, NeedsNodes: func(client.Object) bool { return false },
	}
	events := q.in.AddKind(q.kind)
	go func() {
		for {
			select {
			case e := <-events:
				q.pending <- e.Object
			case <-ctx.Done():
				return
			}
		}
	}()
	for range workers {
		go q.work(ctx)
	}
	return q
}

func (q *queue) work(ctx context.Context) {
	for {
		select {
		case object := <-q.pending:
			if IsBusy(q.reconcile(ctx, object)) {
				time.AfterFunc(busyRetry, func() { q.pending <- object })
			}
		case <-ctx.Done():
			return
		}
	}
}

// reconcile reconciles an object, whose namespace has a Headscale of its own.
func (q *queue) reconcile(ctx context.Context, object client.Object) error {
	found, err := q.in.Find(ctx, object.GetNamespace(), client.ObjectKey{Namespace: object.GetNamespace(), Name: "headscale"})
	if err != nil {
		return err
	}
	place, err := found.Enter(q.kind, object)
	if err != nil {
		return err
	}
	defer place.Leave()
	return q.doing(found, object)
}

// named is an object of a namespace.
func named(namespace string, number int) client.Object {
	name := fmt.Sprint(number)
	return &v1beta1.HeadscaleUser{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name)}}
}

// However many Headscales are slow and however many objects they have, half of the workers are left
// for others as soon as it is known that they are.
func TestSlowHeadscalesLeaveWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		const slow, objects, workers = 20, 40, 16
		w := newWorld(0)
		took, done := map[string]time.Duration{}, map[string]map[string]bool{"quick": {}}
		created := map[string]time.Time{}
		q := newQueue(ctx, w, workers, func(found *Instance, object client.Object) error {
			again := false
			if w.do(func() { again = done[object.GetNamespace()][object.GetName()] }); again {
				return nil
			}
			return found.TryWrite(ctx, func(context.Context, API, *Snapshot) error {
				if object.GetNamespace() != "quick" {
					<-time.After(4 * time.Second)
				}
				w.do(func() {
					done[object.GetNamespace()][object.GetName()] = true
					took[object.GetName()] = time.Since(created[object.GetName()])
				})
				return nil
			})
		})
		for namespace := range slow {
			w.do(func() { done[fmt.Sprint("slow-", namespace)] = map[string]bool{} })
			for number := range objects {
				q.pending <- named(fmt.Sprint("slow-", namespace), number)
			}
		}
		pass(slowAfter)
		for number := 1000; number < 1300; number++ {
			object := named("quick", number)
			w.do(func() { created[object.GetName()] = time.Now() })
			q.pending <- object
			pass(100 * time.Millisecond)
		}
		w.do(func() {
			g.Expect(done["quick"]).To(HaveLen(300))
			late := 0
			for number := 1000; number < 1300; number++ {
				if took[fmt.Sprint(number)] > 0 {
					late++
				}
			}
			g.Expect(late).To(BeNumerically("<", 120), "until each of the slow ones was asked once")
			for number := 1200; number < 1300; number++ {
				g.Expect(took[fmt.Sprint(number)]).To(BeZero())
			}
		})

		// All have their turn.
		pass(30 * time.Minute)
		w.do(func() {
			for namespace := range slow {
				g.Expect(done[fmt.Sprint("slow-", namespace)]).To(HaveLen(objects))
			}
			g.Expect(q.kind.queues).To(BeEmpty(), "nothing is kept of those that are done")
		})
	})
}

// Who has the only place at a slow Headscale waits for its turn, also while others have that, such as
// the timer.
func TestOnlyPlaceIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w := newWorld(0)
		done := 0
		q := newQueue(ctx, w, 16, func(found *Instance, _ client.Object) error {
			return found.TryWrite(ctx, func(context.Context, API, *Snapshot) error {
				<-time.After(2 * time.Second)
				done++
				return nil
			})
		})
		q.pending <- named("slow", 1)
		pass(2 * time.Second)
		found, err := q.in.Find(ctx, "slow", client.ObjectKey{Namespace: "slow", Name: "headscale"})
		g.Expect(err).NotTo(HaveOccurred())
		for number := range 3 {
			g.Expect(found.shared().calls.wait(ctx, time.Now)).To(Succeed())
			q.pending <- named("slow", number+2)
			pass(2 * time.Second)
			found.shared().releaseCalls(q.in)
			pass(2 * time.Second)
			g.Expect(done).To(Equal(number + 2))
		}
	})
}

// One that has always been quick uses half of the workers, and each of its objects is told when it is
// its turn.
func TestQuickHeadscaleHasHalfOfTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w := newWorld(0)
		inside, most, all := 0, 0, 0
		q := newQueue(ctx, w, 16, func(*Instance, client.Object) error {
			w.do(func() { inside++; most = max(most, inside) })
			<-time.After(10 * time.Millisecond)
			w.do(func() { inside--; all++ })
			return nil
		})
		for number := range 1000 {
			q.pending <- named("one", number)
		}
		pass(1000 / 8 * 10 * time.Millisecond)
		w.do(func() {
			g.Expect(most).To(Equal(8))
			g.Expect(all).To(Equal(1000), "without waiting for a retry")
		})
	})
}

func TestLookThatHadNoTimeIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w := newWorld(1)
		in, told := w.start(ctx)
		w.createAll(g, in)
		s := w.find(g, in).shared()
		g.Expect(s.calls.wait(ctx, time.Now)).To(Succeed())
		pass(in.MaxAge + pollTimeout + time.Second)
		before := 0
		w.do(func() { before = w.lists })
		s.releaseCalls(in)
		pass(in.MaxAge)
		w.do(func() {
			g.Expect(w.lists).To(Equal(before + 1))
			g.Expect(*told).To(BeEmpty(), "nothing is wrong")
		})
	})
}
