package kube_test

import (
	"context"
	"errors"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/kube/apply"
)

// fieldManager is the field manager of these tests.
const fieldManager = "kube-test"

var _ = Describe("A plan", func() {
	var (
		namespace string
		owner     *corev1.ConfigMap
		created   []string
		observed  []*corev1.ConfigMap
		spec      apply.Spec[*corev1ac.ConfigMapApplyConfiguration, *corev1.ConfigMap]
	)
	BeforeEach(func(ctx context.Context) {
		namespace = newNamespace(ctx)
		owner = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "owner"}}
		Expect(admin.Create(ctx, owner)).To(Succeed())
		created, observed = nil, nil
		spec = apply.Spec[*corev1ac.ConfigMapApplyConfiguration, *corev1.ConfigMap]{
			Extract:   corev1ac.ExtractConfigMap,
			OnObserve: func(live *corev1.ConfigMap) { observed = append(observed, live) },
			OnCreate:  func(live *corev1.ConfigMap) { created = append(created, live.Name) },
		}
	})
	newPlan := func() *apply.Plan {
		return apply.NewPlan(apply.Clients{Cache: admin, Live: admin, Writer: admin}, owner, fieldManager)
	}
	want := func(name, value string) *corev1ac.ConfigMapApplyConfiguration {
		return corev1ac.ConfigMap(name, namespace).WithData(map[string]string{"key": value}).WithOwnerReferences(
			metav1ac.OwnerReference().WithAPIVersion("v1").WithKind("ConfigMap").WithName(owner.Name).WithUID(owner.UID).WithController(true))
	}
	add := func(ctx context.Context, configs ...*corev1ac.ConfigMapApplyConfiguration) *apply.Plan {
		GinkgoHelper()
		plan := newPlan()
		for _, config := range configs {
			apply.Add(ctx, plan, config, spec)
		}
		return plan
	}
	value := func(ctx context.Context, name string) string {
		GinkgoHelper()
		live := &corev1.ConfigMap{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, live)).To(Succeed())
		return live.Data["key"]
	}

	It("creates, changes, and writes nothing where nothing differs", func(ctx context.Context) {
		plan := add(ctx, want("a", "1"), nil, want("b", "1"))
		Expect(plan.Empty()).To(BeFalse())
		Expect(plan.Execute(ctx)).To(Succeed())
		Expect(created).To(Equal([]string{"a", "b"}))
		Expect(observed).To(HaveLen(2))

		Expect(add(ctx, want("a", "1"), want("b", "1")).Empty()).To(BeTrue())
		plan = add(ctx, want("a", "2"), want("b", "1"))
		Expect(plan.Execute(ctx)).To(Succeed())
		Expect(value(ctx, "a")).To(Equal("2"))
		Expect(created).To(Equal([]string{"a", "b"}), "only what did not exist")
	})

	It("compares no version of an object again that is known to be up to date", func(ctx context.Context) {
		compared, memory := 0, &apply.Memory{}
		spec.Extract = func(live *corev1.ConfigMap, fieldManager string) (*corev1ac.ConfigMapApplyConfiguration, error) {
			compared++
			return corev1ac.ExtractConfigMap(live, fieldManager)
		}
		// sync applies a value, and returns how often fields were compared for it, and whether it wrote.
		sync := func(value string) (int, bool) {
			GinkgoHelper()
			before := compared
			plan := apply.NewPlan(apply.Clients{Cache: admin, Live: admin, Writer: admin, Memory: memory}, owner, fieldManager)
			apply.Add(ctx, plan, want("a", value), spec)
			Expect(plan.Execute(ctx)).To(Succeed())
			return compared - before, !plan.Empty()
		}
		edit := func(data string) {
			GinkgoHelper()
			Expect(admin.Patch(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"}},
				client.RawPatch("application/merge-patch+json", []byte(`{"data":`+data+`}`)))).To(Succeed())
		}
		_, wrote := sync("1")
		Expect(wrote).To(BeTrue())
		times, wrote := sync("1")
		Expect(times).To(BeZero(), "it is as it was written")
		Expect(wrote).To(BeFalse())
		Expect(observed).To(HaveLen(2), "it is observed, nevertheless")

		edit(`{"other":"theirs"}`)
		times, wrote = sync("1")
		Expect(times).To(Equal(1), "somebody wrote to it")
		Expect(wrote).To(BeFalse())
		times, _ = sync("1")
		Expect(times).To(BeZero())

		edit(`{"key":"theirs"}`)
		_, wrote = sync("1")
		Expect(wrote).To(BeTrue())
		_, wrote = sync("2")
		Expect(wrote).To(BeTrue(), "another value is wanted of the same version")
		Expect(value(ctx, "a")).To(Equal("2"))

		Expect(admin.Delete(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"}})).To(Succeed())
		_, wrote = sync("2")
		Expect(wrote).To(BeTrue(), "it was deleted")
		Expect(created).To(HaveLen(2))

		edit(`{"other":null},"metadata":{"finalizers":["example.com/wait"]}`)
		Expect(admin.Delete(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"}})).To(Succeed())
		_, wrote = sync("3")
		Expect(wrote).To(BeFalse(), "it is being deleted")
		times, wrote = sync("3")
		Expect(times).To(Equal(1), "which does not make it up to date")
		Expect(wrote).To(BeFalse())
		edit(`{"other":null},"metadata":{"finalizers":null}`)
		_, wrote = sync("2")
		Expect(wrote).To(BeTrue(), "it is gone")

		memory.Forget(client.ObjectKeyFromObject(owner))
		times, wrote = sync("2")
		Expect(times).To(Equal(1))
		Expect(wrote).To(BeFalse())
	})

	It("leaves what others own in an object, and takes back what is its own", func(ctx context.Context) {
		Expect(add(ctx, want("a", "1")).Execute(ctx)).To(Succeed())
		Expect(admin.Patch(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"}},
			client.RawPatch("application/merge-patch+json", []byte(`{"data":{"key":"theirs","other":"theirs"}}`)))).To(Succeed())
		Expect(add(ctx, want("a", "1")).Execute(ctx)).To(Succeed())
		live := &corev1.ConfigMap{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "a"}, live)).To(Succeed())
		Expect(live.Data).To(Equal(map[string]string{"key": "1", "other": "theirs"}))
	})

	It("writes nothing at all where a name is taken", func(ctx context.Context) {
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "b"}, Data: map[string]string{"key": "theirs"}}
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		err := add(ctx, want("a", "1"), want("b", "1")).Execute(ctx)
		var taken *apply.ForeignError
		Expect(errors.As(err, &taken)).To(BeTrue())
		Expect(err).To(MatchError("ConfigMap b exists already and does not belong to this ConfigMap, so it is left alone: delete or rename it, or give the ConfigMap another name"))
		Expect(value(ctx, "b")).To(Equal("theirs"))
		Expect(apierrors.IsNotFound(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "a"}, &corev1.ConfigMap{}))).To(BeTrue())
	})

	It("says who changed an object that cannot be applied any more", func(ctx context.Context) {
		Expect(add(ctx, want("a", "1")).Execute(ctx)).To(Succeed())
		Expect(admin.Patch(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"}},
			client.RawPatch("application/merge-patch+json", []byte(`{"immutable":true}`)), client.FieldOwner("somebody"))).To(Succeed())
		err := add(ctx, want("a", "2")).Execute(ctx)
		var edited *apply.EditedError
		Expect(errors.As(err, &edited)).To(BeTrue())
		Expect(edited.Managers).To(Equal([]string{"somebody"}))
		Expect(edited.Reason()).To(Equal("Conflict"))
		Expect(err).To(MatchError(And(HavePrefix("The ConfigMap a was changed by somebody, and the API server rejects it together with that change: "),
			HaveSuffix("undo the change: kubectl get configmap a -n "+namespace+" -o yaml --show-managed-fields shows it"))))

		err = add(ctx, want("a", "2").WithLabels(map[string]string{"not a label": "x"})).Execute(ctx)
		Expect(apierrors.IsInvalid(err)).To(BeTrue())
		edited = nil
		Expect(errors.As(err, &edited)).To(BeFalse(), "it is not valid by itself")
	})

	It("never writes to an object that was created since the comparison", func(ctx context.Context) {
		plan := add(ctx, want("a", "1"))
		Expect(admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"}, Data: map[string]string{"key": "theirs"}})).To(Succeed())
		Expect(apierrors.IsConflict(plan.Execute(ctx))).To(BeTrue())
		Expect(value(ctx, "a")).To(Equal("theirs"))
	})

	It("writes nothing for an owner that is gone, or that is another one of its name", func(ctx context.Context) {
		plan := add(ctx, want("a", "1"))
		Expect(admin.Delete(ctx, owner)).To(Succeed())
		Expect(plan.Execute(ctx)).To(MatchError("The ConfigMap is being deleted"))
		owner.UID, owner.ResourceVersion = "", ""
		again := owner.DeepCopy()
		Expect(admin.Create(ctx, again)).To(Succeed())
		owner.UID = "another"
		Expect(plan.Execute(ctx)).To(MatchError("The ConfigMap is being deleted"))
	})

	It("asks by dry run before it writes anything, and writes what does not wait for what is refused", func(ctx context.Context) {
		Expect(add(ctx, want("a", "1"), want("b", "1"), want("c", "1"), want("d", "1")).Execute(ctx)).To(Succeed())
		spec.DryRun = true
		plan := newPlan()
		apply.Add(ctx, plan, want("a", "2"), spec, "ConfigMap b")
		apply.Add(ctx, plan, want("b", "2").WithLabels(map[string]string{"not a label": "x"}), spec)
		apply.Add(ctx, plan, want("c", "2"), spec, "ConfigMap d")
		apply.Add(ctx, plan, want("d", "2"), spec)
		err := plan.Execute(ctx)
		Expect(apierrors.IsInvalid(err)).To(BeTrue())
		Expect(err).To(MatchError(And(HavePrefix("applying the ConfigMap b: "), HaveSuffix(" (ConfigMap a waits for it)"))))
		Expect([]string{value(ctx, "a"), value(ctx, "b"), value(ctx, "c"), value(ctx, "d")}).To(Equal([]string{"1", "1", "2", "2"}))
	})

	It("writes what it can where a name is taken from an owner whose objects exist", func(ctx context.Context) {
		Expect(add(ctx, want("a", "1"), want("b", "1")).Execute(ctx)).To(Succeed())
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "b"}}
		Expect(admin.Delete(ctx, foreign.DeepCopy())).To(Succeed())
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		plan := newPlan()
		apply.Add(ctx, plan, want("a", "2"), spec)
		apply.Add(ctx, plan, want("b", "2"), spec)
		apply.Add(ctx, plan, want("c", "2"), spec, "ConfigMap b")
		Expect(plan.Execute(ctx)).To(MatchError(And(HavePrefix("ConfigMap b exists already"), HaveSuffix(" (ConfigMap c waits for it)"))))
		Expect(value(ctx, "a")).To(Equal("2"))
		Expect(value(ctx, "b")).To(BeEmpty())
		Expect(apierrors.IsNotFound(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "c"}, &corev1.ConfigMap{}))).To(BeTrue())
	})

	It("deletes the owner's object, and nobody else's", func(ctx context.Context) {
		Expect(add(ctx, want("a", "1")).Execute(ctx)).To(Succeed())
		Expect(admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "b"}})).To(Succeed())
		for _, name := range []string{"a", "b", "missing"} {
			Expect(apply.Delete[corev1.ConfigMap](ctx, admin, admin, owner, name)).To(Succeed())
		}
		Expect(apierrors.IsNotFound(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "a"}, &corev1.ConfigMap{}))).To(BeTrue())
		Expect(value(ctx, "b")).To(BeEmpty())
	})
})
