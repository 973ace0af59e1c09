package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/audit"
	"infrado.cloud/headscale-operator/test/env"
)

const (
	// headscalesBefore are made for an operator to be interrupted at, and headscalesAfter for
	// the one that takes over.
	headscalesBefore, headscalesAfter = 20, 10
	// objectsEach is how many objects belong to one that has an API key.
	objectsEach = 7
)

// twins are two operators on a control plane of their own, of which one works.
type twins struct {
	world *env.World
	admin client.Client
	audit *audit.Log
	// operators are those that were started.
	operators []*env.Operator
	// writes are the operators' in their order, all but events and status.
	writes []*audit.Event
}

// startPlane starts a control plane that keeps an audit log, with the operator installed.
func startPlane(ctx context.Context) *twins {
	GinkgoHelper()
	t := &twins{}
	var err error
	t.world, err = env.NewWorld("hs-two-", GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(t.world.Close)
	t.audit, err = audit.New(t.world.Guard.Dir())
	Expect(err).NotTo(HaveOccurred())
	Expect(t.world.StartPlane(t.audit.Configure)).To(Succeed())
	t.admin = t.world.Admin
	Expect(t.world.Plane.InstallOperator(ctx, root)).To(Succeed())
	DeferCleanup(func() {
		for _, o := range t.operators {
			o.Process.Kill()
		}
	})
	return t
}

// start starts an operator whose program has a name of its own, which is how its requests
// are told from those of others.
func (t *twins) start(ctx context.Context, name string) *env.Operator {
	GinkgoHelper()
	program := filepath.Join(t.world.Guard.Dir(), name)
	Expect(os.Symlink(binaries.Operator, program)).To(Succeed())
	o, err := t.world.RunOperator(ctx, program)
	Expect(err).NotTo(HaveOccurred())
	t.operators = append(t.operators, o)
	return o
}

// holder is who has the lease; "": nobody.
func (t *twins) holder(ctx context.Context, g Gomega) string {
	leases := &coordinationv1.LeaseList{}
	g.Expect(t.admin.List(ctx, leases, client.InNamespace("headscale-operator-system"))).To(Succeed())
	g.Expect(leases.Items).To(HaveLen(1))
	return ptr.Deref(leases.Items[0].Spec.HolderIdentity, "")
}

// awaitLeader waits until the lease has another holder, and returns it.
func (t *twins) awaitLeader(ctx context.Context, before string) (holder string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		holder = t.holder(ctx, g)
		g.Expect(holder).NotTo(Or(BeEmpty(), Equal(before)))
	}).Should(Succeed())
	return holder
}

// makeNamespace makes a namespace.
func (t *twins) makeNamespace(ctx context.Context, name string) {
	GinkgoHelper()
	Expect(t.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
}

// makeHeadscales makes some whose names begin alike.
func (t *twins) makeHeadscales(ctx context.Context, namespace, prefix string, number int) {
	GinkgoHelper()
	for i := range number {
		name := fmt.Sprintf("%s-%02d", prefix, i)
		config, err := v1beta1.NewHeadscaleConfig(map[string]any{"server_url": "https://" + name + ".example.com"})
		Expect(err).NotTo(HaveOccurred())
		Expect(t.admin.Create(ctx, &v1beta1.Headscale{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: v1beta1.HeadscaleSpec{
				Version: "v0.29.3", Config: config, APIKey: v1beta1.APIKeySpec{SecretName: name + "-key", Expiration: "2160h"},
			},
		})).To(Succeed())
	}
}

// statefulSets counts those in a namespace.
func (t *twins) statefulSets(ctx context.Context, namespace string) func() (int, error) {
	return func() (int, error) {
		list := &appsv1.StatefulSetList{}
		err := t.admin.List(ctx, list, client.InNamespace(namespace))
		return len(list.Items), err
	}
}

// objects counts what was made in a namespace.
func (t *twins) objects(ctx context.Context, namespace string) int {
	GinkgoHelper()
	found := 0
	for _, kind := range []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("ServiceAccountList"), rbacv1.SchemeGroupVersion.WithKind("RoleList"),
		rbacv1.SchemeGroupVersion.WithKind("RoleBindingList"), corev1.SchemeGroupVersion.WithKind("ConfigMapList"),
		corev1.SchemeGroupVersion.WithKind("ServiceList"), appsv1.SchemeGroupVersion.WithKind("StatefulSetList"),
	} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kind)
		Expect(t.admin.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{v1beta1.LabelManagedBy: v1beta1.ManagedBy})).To(Succeed())
		found += len(list.Items)
	}
	return found
}

// read brings the writes up to date.
func (t *twins) read(g Gomega) []*audit.Event {
	g.Expect(t.audit.Read(func(event *audit.Event) {
		object := event.ObjectRef
		// What an operator asked for in the moment in which it ended may have been cut off,
		// with or without an effect.
		done := event.Stage == "ResponseComplete" && event.ResponseStatus.Code < http.StatusMultipleChoices
		if event.Writes() && done && object.Resource != "events" && object.Subresource == "" && strings.HasPrefix(event.UserAgent, "operator-") {
			t.writes = append(t.writes, event)
		}
	})).To(Succeed())
	return t.writes
}

// by is the name of the operator that a write is from.
func by(event *audit.Event) string {
	name, _, _ := strings.Cut(event.UserAgent, "/")
	return name
}

// written says, for every object in a namespace, who wrote it.
func (t *twins) written(g Gomega, namespace string) map[string][]string {
	objects := map[string][]string{}
	for _, event := range t.read(g) {
		if event.ObjectRef.Namespace == namespace {
			name := event.ObjectRef.Resource + "/" + event.ObjectRef.Name
			objects[name] = append(objects[name], by(event))
		}
	}
	return objects
}

// writesOf are the writes of one operator.
func (t *twins) writesOf(name string) []*audit.Event {
	var events []*audit.Event
	for _, event := range t.writes {
		if by(event) == name {
			events = append(events, event)
		}
	}
	return events
}

// finishes checks that a successor finished what the first operator was interrupted at: no
// object was written twice, and the two never wrote at the same time.
func (t *twins) finishes(ctx context.Context, namespace, first, second string) {
	GinkgoHelper()
	const headscales = headscalesBefore + headscalesAfter
	Eventually(t.statefulSets(ctx, namespace)).Should(Equal(headscales))
	Expect(t.objects(ctx, namespace)).To(Equal(headscales * objectsEach))
	Expect(t.written(Default, namespace)).To(HaveEach(HaveLen(1)), "no object is written twice")
	before, after := t.writesOf(first), t.writesOf(second)
	Expect(before).NotTo(BeEmpty(), "the first had begun")
	Expect(after).NotTo(BeEmpty(), "the second took over")
	last, next := before[len(before)-1].Staged, after[0].Received
	Expect(last).To(BeTemporally("<=", next), "the first had ended when the second began")
	AddReportEntry("no operator wrote for", next.Sub(last).Round(time.Millisecond).String())
}

var _ = Describe("Two operators", Ordered, func() {
	var (
		t      *twins
		first  *env.Operator
		second *env.Operator
		leader string
	)

	BeforeAll(func(ctx SpecContext) {
		t = startPlane(ctx)
		first = t.start(ctx, "operator-a")
		leader = t.awaitLeader(ctx, "")
		second = t.start(ctx, "operator-b")
	})

	It("hand over in the middle of the work when the one that works ends", func(ctx SpecContext) {
		t.makeNamespace(ctx, "in-order")
		t.makeHeadscales(ctx, "in-order", "before", headscalesBefore)
		Eventually(t.statefulSets(ctx, "in-order")).Should(BeNumerically(">", 0))
		Expect(first.Stop()).To(Succeed())
		// One that dies keeps it for 15 seconds.
		Expect(t.holder(ctx, Default)).NotTo(Equal(leader), "the lease was given back, and is not waited for")
		t.makeHeadscales(ctx, "in-order", "after", headscalesAfter)
		leader = t.awaitLeader(ctx, leader)
		t.finishes(ctx, "in-order", "operator-a", "operator-b")
	})

	It("hand over when the one that works is killed, once its lease has run out", func(ctx SpecContext) {
		t.start(ctx, "operator-c")
		t.makeNamespace(ctx, "killed")
		t.makeHeadscales(ctx, "killed", "before", headscalesBefore)
		Eventually(t.statefulSets(ctx, "killed")).Should(BeNumerically(">", 0))
		second.Process.Kill()
		t.makeHeadscales(ctx, "killed", "after", headscalesAfter)
		leader = t.awaitLeader(ctx, leader)
		t.finishes(ctx, "killed", "operator-b", "operator-c")
	})

	It("leave nothing to do for the one that took over", func(ctx SpecContext) {
		written := len(t.read(Default))
		headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: "killed", Name: "after-00"}}
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"version":"v0.29.2"}}`))
		Expect(t.admin.Patch(ctx, headscale, patch)).To(Succeed())
		// What it changes now is what was asked for now, and nothing from before.
		Eventually(func(g Gomega) {
			var names []string
			for _, event := range t.read(g)[written:] {
				names = append(names, event.ObjectRef.Namespace+"/"+event.ObjectRef.Name)
			}
			g.Expect(names).NotTo(BeEmpty())
			g.Expect(names).To(HaveEach(HavePrefix("killed/after-00")))
		}).Should(Succeed())
	})
})
