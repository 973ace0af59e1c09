package instance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// inWorld is a test with a world of objects that all have their users.
func inWorld(t *testing.T, objects int, do func(g Gomega, w *world, in *Instances, named *[]string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w := newWorld(objects)
		in, named := w.start(ctx)
		w.createAll(g, in)
		do(g, w, in, named)
	})
}

// refuse is a reconcile whose write ends with an error.
func (w *world) refuse(g Gomega, in *Instances, err error) {
	g.Expect(w.find(g, in).Write(context.Background(), func(context.Context, API, *Snapshot) error { return err })).To(MatchError(err))
}

// read is a reconcile that reads the snapshot.
func (w *world) read(g Gomega, in *Instances) {
	_, err := w.find(g, in).Snapshot(context.Background())
	g.Expect(err).NotTo(HaveOccurred())
}

// outdate has the snapshot be too old, as it is where a look is late.
func outdate(in *Instances) {
	s := in.known[client.ObjectKey{Namespace: "default", Name: "headscale"}]
	s.lock.Lock()
	defer s.lock.Unlock()
	s.readAt = s.readAt.Add(-in.MaxAge)
}

var (
	errRefusedOne  = status.Later(time.Minute, &Problem{Because: v1beta1.ReasonRefused, Lasting: true, Message: "refused"})
	errOutdatedOne = status.Later(time.Millisecond, &Problem{Because: v1beta1.ReasonReconcileFailed, Message: "outdated"})
)

// Drift that concerns an object only because the object itself has changed while the Headscale was read is noticed:
// it may have been reconciled meanwhile, with the snapshot from before.
func TestDriftOfAnObjectThatChangesMeanwhile(t *testing.T) {
	inWorld(t, 3, func(g Gomega, w *world, _ *Instances, named *[]string) {
		w.do(func() {
			w.users = append(w.users, headscale.User{ID: 4, Name: "renamed"})
			w.reading = func() {
				w.objects = append(w.objects[1:], &v1beta1.HeadscaleUser{ObjectMeta: metav1.ObjectMeta{Name: "renamed"}})
			}
		})
		pass(30 * time.Second)
		w.do(func() { g.Expect(*named).To(Equal([]string{"renamed"})) })
	})
}

// An object with which the comparison panics does not keep others from being told. It is reconciled itself.
func TestDriftBesideAPanic(t *testing.T) {
	inWorld(t, 3, func(g Gomega, w *world, _ *Instances, named *[]string) {
		w.do(func() {
			w.panics = w.objects[0].GetName()
			w.users = slices.DeleteFunc(w.users, func(user headscale.User) bool { return user.Name == "user-2" })
		})
		pass(30 * time.Second)
		w.do(func() { g.Expect(*named).To(ConsistOf(w.panics, "user-2")) })
	})
}

// Drift is noticed also where a reconcile of another object is the first to read it.
func TestDriftThatAReconcileReads(t *testing.T) {
	for name, before := range map[string]func(g Gomega, w *world, in *Instances){
		"after a refusal": func(g Gomega, w *world, in *Instances) { w.refuse(g, in, errRefusedOne); w.read(g, in) },
		"after two": func(g Gomega, w *world, in *Instances) {
			w.refuse(g, in, errRefusedOne)
			w.refuse(g, in, errRefusedOne)
		},
		"when it is stale":  func(g Gomega, w *world, in *Instances) { outdate(in); w.read(g, in) },
		"before it writes":  func(g Gomega, w *world, in *Instances) { outdate(in); w.refuse(g, in, errOutdatedOne) },
		"from the next pod": func(g Gomega, w *world, in *Instances) { w.do(func() { w.pod = "pod-2" }); w.read(g, in) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 3, func(g Gomega, w *world, in *Instances, named *[]string) {
				gone := w.users[2].Name
				w.do(func() { w.users = w.users[:2] })
				before(g, w, in)
				pass(31 * time.Second)
				w.do(func() { g.Expect(*named).To(Equal([]string{gone})) })
			})
		})
	}
}

// Nodes that go are noticed, too, by an object that waits for that.
func TestNodesThatAReconcileReads(t *testing.T) {
	inWorld(t, 1, func(g Gomega, w *world, in *Instances, named *[]string) {
		w.do(func() { w.needsNodes, w.nodesThere = true, []headscale.Node{{ID: 1, UserID: 1}} })
		pass(31 * time.Second)
		w.do(func() { *named = nil; w.nodesThere = nil })
		outdate(in)
		w.read(g, in)
		pass(31 * time.Second)
		w.do(func() { g.Expect(*named).To(HaveLen(1)) })
	})
}

// Nodes by which a reconcile has decided are not replaced by those that another one reads later, from which the
// next snapshot would not differ.
func TestNodesThatTwoReconcilesRead(t *testing.T) {
	inWorld(t, 1, func(g Gomega, w *world, in *Instances, named *[]string) {
		w.do(func() {
			w.needsNodes, w.nodesThere = true, []headscale.Node{{ID: 1, UserID: 1}}
			w.reading = func() { w.nodesThere = nil }
		})
		var readers sync.WaitGroup
		g.Expect(w.find(g, in).Write(context.Background(), func(context.Context, API, *Snapshot) error {
			for range 2 {
				readers.Go(func() {
					snapshot, err := w.find(g, in).Nodes(context.Background())
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(snapshot.NodesOf(1)).To(HaveLen(1))
				})
			}
			synctest.Wait() // both have found a snapshot without nodes
			return nil
		})).To(Succeed())
		readers.Wait()
		w.do(func() { g.Expect(w.nodes).To(Equal(1)) })
		pass(31 * time.Second)
		w.do(func() { g.Expect(*named).To(HaveLen(1)) })
	})
}

// That nobody answers is told to all, whoever finds it, and that somebody does again.
func TestProblemThatAReconcileFinds(t *testing.T) {
	for name, find := range map[string]func(w *world, in *Instances, found *Instance) error{
		"reading": func(_ *world, in *Instances, found *Instance) error {
			outdate(in)
			_, err := found.Snapshot(context.Background())
			return err
		},
		"writing": func(_ *world, _ *Instances, found *Instance) error {
			return found.Write(context.Background(), func(ctx context.Context, api API, _ *Snapshot) error {
				_, err := api.CreateUser(ctx, headscale.NewUser{Name: "new"})
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 3, func(g Gomega, w *world, in *Instances, named *[]string) {
				w.do(func() { w.away = fmt.Errorf("%w: refused", headscale.ErrUnavailable) })
				g.Expect(find(w, in, w.find(g, in))).To(MatchError(ContainSubstring("cannot be reached")))
				pass(5 * time.Minute)
				w.do(func() { g.Expect(*named).To(HaveLen(3), "once"); *named, w.away = nil, nil })
				pass(31 * time.Second)
				w.do(func() { g.Expect(*named).To(HaveLen(3)) })
			})
		})
	}
}

// A problem that a call has for a moment is told to nobody but the object, which is told when it is
// over, as all are that may have seen it.
func TestProblemThatIsOverAtTheNextLook(t *testing.T) {
	inWorld(t, 3, func(g Gomega, w *world, in *Instances, named *[]string) {
		away := fmt.Errorf("%w: reset", headscale.ErrUnavailable)
		err := w.find(g, in).Write(context.Background(), func(context.Context, API, *Snapshot) error { return away })
		g.Expect(err).To(MatchError(headscale.ErrUnavailable))
		_, err = w.find(g, in).Snapshot(context.Background())
		g.Expect(err).To(MatchError(ContainSubstring("cannot be reached")))
		pass(2 * time.Second)
		w.do(func() { g.Expect(*named).To(HaveLen(3)) })
	})
}

// What one object waits for, or was refused, is no problem of another one.
func TestProblemOfOneObject(t *testing.T) {
	for name, err := range map[string]error{"refused": errRefusedOne, "outdated": errOutdatedOne} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 100, func(g Gomega, w *world, in *Instances, named *[]string) {
				for range 5 {
					w.refuse(g, in, err)
					w.read(g, in)
					g.Expect(w.find(g, in).Write(context.Background(), func(context.Context, API, *Snapshot) error { return nil })).To(Succeed())
					w.refuse(g, in, err)
					pass(time.Minute)
				}
				w.do(func() { g.Expect(*named).To(BeEmpty(), "nothing has changed") })
			})
		})
	}
}

// A Headscale that reads its policy from a file that is not there refuses to show it.
func TestPolicyThatIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w := newWorld(2)
		w.needsPolicy, w.noPolicy = true, &headscale.Refusal{Words: "reading policy from path \"\": no such file or directory"}
		w.concerns = func(_ client.Object, changes Changes) bool { return changes.Policy }
		in, named := w.start(ctx)
		w.createAll(g, in)
		pass(5 * time.Minute)
		w.read(g, in)
		_, err := w.find(g, in).Policy(ctx)
		g.Expect(err).To(MatchError(headscale.ErrRefused), "whoever is about the policy learns of it")
		w.read(g, in)

		// The file is there.
		w.do(func() { w.noPolicy, w.policy = nil, "new" })
		_, err = w.find(g, in).Policy(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		synctest.Wait()
		w.do(func() { g.Expect(*named).To(HaveLen(2), "they knew of none") })
	})
}

// What a write has changed, or has found changed, is in the snapshot already, so that the next one does
// not differ by it.
func TestWhatAWriteChangesIsTold(t *testing.T) {
	for name, test := range map[string]struct {
		write func(s *Snapshot)
		told  int
	}{
		"another policy":          {func(s *Snapshot) { s.PutPolicy(headscale.Policy{Text: "other"}) }, 1},
		"a policy, twice":         {func(s *Snapshot) { s.PutPolicy(headscale.Policy{Text: "x"}); s.PutPolicy(headscale.Policy{Text: "y"}) }, 1},
		"the same policy":         {func(s *Snapshot) { s.PutPolicy(headscale.Policy{Text: "first"}) }, 0},
		"a user that was made":    {func(s *Snapshot) { s.PutUser(headscale.User{ID: 7, Name: "seven"}) }, 1},
		"a user of another name":  {func(s *Snapshot) { s.PutUser(headscale.User{ID: 1, Name: "other"}) }, 0},
		"a user that was deleted": {func(s *Snapshot) { s.DropUser(1) }, 1},
		"nothing":                 {func(*Snapshot) {}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				w := newWorld(3)
				w.needsPolicy, w.policy, w.users = true, "first", []headscale.User{{ID: 1, Name: "one"}}
				first := w.objects[0]
				w.concerns = func(object client.Object, changes Changes) bool {
					return object == first && (changes.Policy || slices.Contains(changes.Users, 7) || slices.Contains(changes.Users, 1))
				}
				in, named := w.start(ctx)
				_, err := w.find(g, in).Policy(ctx)
				g.Expect(err).NotTo(HaveOccurred())
				synctest.Wait()
				w.do(func() { g.Expect(*named).To(BeEmpty(), "what is read is no change") })
				g.Expect(w.find(g, in).Write(ctx, func(_ context.Context, _ API, s *Snapshot) error { test.write(s); return nil })).To(Succeed())
				synctest.Wait()
				w.do(func() { g.Expect(*named).To(HaveLen(test.told)) })
			})
		})
	}
}
