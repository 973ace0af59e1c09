package kube_test

import (
	"bytes"
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

	Describe("with what is remembered", func() {
		var (
			memory   *apply.Memory
			compared int
			cache    client.Reader
			writer   client.Writer
		)
		BeforeEach(func() {
			memory, compared, cache, writer = &apply.Memory{}, 0, admin, admin
			spec.Extract = func(live *corev1.ConfigMap, fieldManager string) (*corev1ac.ConfigMapApplyConfiguration, error) {
				compared++
				return corev1ac.ExtractConfigMap(live, fieldManager)
			}
		})
		try := func(ctx context.Context, value string) (times int, wrote bool, err error) {
			before := compared
			plan := apply.NewPlan(apply.Clients{Cache: cache, Live: admin, Writer: writer, Memory: memory}, owner, fieldManager)
			apply.Add(ctx, plan, want("a", value), spec)
			err = plan.Execute(ctx)
			return compared - before, !plan.Empty(), err
		}
		// sync applies a value, and returns how often fields were compared for it, and whether it wrote.
		sync := func(ctx context.Context, value string) (int, bool) {
			GinkgoHelper()
			times, wrote, err := try(ctx, value)
			Expect(err).NotTo(HaveOccurred())
			return times, wrote
		}
		object := func() *corev1.ConfigMap {
			return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"}}
		}
		edit := func(ctx context.Context, data string) {
			GinkgoHelper()
			Expect(admin.Patch(ctx, object(), client.RawPatch("application/merge-patch+json", []byte(`{"data":`+data+`}`)))).To(Succeed())
		}

		It("compares no version of an object again that is known to be up to date", func(ctx context.Context) {
			times, wrote := sync(ctx, "1")
			Expect(times).To(BeZero(), "nothing was there, and the API server changes nothing")
			Expect(wrote).To(BeTrue())
			times, wrote = sync(ctx, "1")
			Expect(times).To(BeZero(), "it is as it was written")
			Expect(wrote).To(BeFalse())
			Expect(observed).To(HaveLen(2), "it is observed, nevertheless")

			edit(ctx, `{"other":"theirs"}`)
			times, wrote = sync(ctx, "1")
			Expect(times).To(Equal(1), "somebody wrote to it")
			Expect(wrote).To(BeFalse())
			times, _ = sync(ctx, "1")
			Expect(times).To(BeZero())

			edit(ctx, `{"key":"theirs"}`)
			_, wrote = sync(ctx, "1")
			Expect(wrote).To(BeTrue())
			_, wrote = sync(ctx, "2")
			Expect(wrote).To(BeTrue(), "another value is wanted of the same version")
			Expect(value(ctx, "a")).To(Equal("2"))

			memory.Forget(client.ObjectKeyFromObject(owner))
			times, wrote = sync(ctx, "2")
			Expect(times).To(Equal(1))
			Expect(wrote).To(BeFalse())
		})

		It("creates again what was deleted, once it is gone", func(ctx context.Context) {
			sync(ctx, "1")
			Expect(admin.Delete(ctx, object())).To(Succeed())
			_, wrote := sync(ctx, "1")
			Expect(wrote).To(BeTrue(), "it was deleted")
			Expect(created).To(HaveLen(2))

			edit(ctx, `{"other":null},"metadata":{"finalizers":["example.com/wait"]}`)
			Expect(admin.Delete(ctx, object())).To(Succeed())
			_, wrote = sync(ctx, "2")
			Expect(wrote).To(BeFalse(), "it is being deleted")
			times, wrote := sync(ctx, "2")
			Expect(times).To(Equal(1), "which does not make it up to date")
			Expect(wrote).To(BeFalse())
			edit(ctx, `{"other":null},"metadata":{"finalizers":null}`)
			_, wrote = sync(ctx, "1")
			Expect(wrote).To(BeTrue(), "it is gone")
		})

		It("writes nothing where only a cache that is behind is not as wanted", func(ctx context.Context) {
			sync(ctx, "1")
			behind := object()
			Expect(admin.Get(ctx, client.ObjectKeyFromObject(behind), behind)).To(Succeed())
			sync(ctx, "2")
			cache = behindReader{admin, behind}
			times, wrote := sync(ctx, "2")
			Expect(times).To(Equal(1), "that of the cache")
			Expect(wrote).To(BeFalse())
			Expect(value(ctx, "a")).To(Equal("2"))
		})

		It("tries again what was refused, and leaves alone what another owner of the name has", func(ctx context.Context) {
			sync(ctx, "1")
			spec.DryRun, spec.Gate = true, func(context.Context, *corev1.ConfigMap, *corev1.ConfigMap) error { return errors.New("not now") }
			for range 2 {
				_, wrote, err := try(ctx, "2")
				Expect(wrote).To(BeTrue())
				Expect(err).To(MatchError("not now"))
			}
			Expect(value(ctx, "a")).To(Equal("1"))
			spec.Gate = nil
			_, wrote := sync(ctx, "2")
			Expect(wrote).To(BeTrue())
			Expect(value(ctx, "a")).To(Equal("2"))

			owner.UID = "another"
			_, _, err := try(ctx, "2")
			Expect(err).To(MatchError(HavePrefix("ConfigMap a exists already and does not belong to this ConfigMap")))
		})

		It("keeps an immutable value, and compares that but once", func(ctx context.Context) {
			sync(ctx, "1")
			spec.KeepImmutable = func(wanted, owned *corev1ac.ConfigMapApplyConfiguration) *corev1ac.ConfigMapApplyConfiguration {
				kept := *wanted
				kept.Data = owned.Data
				return &kept
			}
			times, wrote := sync(ctx, "2")
			Expect(times).To(Equal(1), "this value was not compared before")
			Expect(wrote).To(BeFalse())
			times, wrote = sync(ctx, "2")
			Expect(times).To(BeZero())
			Expect(wrote).To(BeFalse())
			Expect(value(ctx, "a")).To(Equal("1"))
		})

		It("applies once more what the API server changes, and then no more", func(ctx context.Context) {
			writer = changesData{admin}
			write := func() bool {
				GinkgoHelper()
				_, wrote := sync(ctx, "1")
				return wrote
			}
			Expect(write()).To(BeTrue())
			Expect(write()).To(BeFalse(), "it is as it was written")
			edit(ctx, `{"other":"theirs"}`)
			Expect(write()).To(BeTrue())
			for _, other := range []string{"2", "3", "4"} {
				edit(ctx, `{"other":"`+other+`"}`)
				Expect(write()).To(BeFalse())
			}
			memory.Forget(client.ObjectKeyFromObject(owner))
			Expect(write()).To(BeTrue(), "the operator started again")
			edit(ctx, `{"other":"5"}`)
			Expect(write()).To(BeFalse())
		})
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

// behindReader is a cache in which every ConfigMap is this one.
type behindReader struct {
	client.Reader
	object *corev1.ConfigMap
}

// Get reads it.
func (b behindReader) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	b.object.DeepCopyInto(into.(*corev1.ConfigMap)) //nolint:errcheck // it is one
	return nil
}

// changesData is an API server with an admission policy that changes a value of every ConfigMap.
type changesData struct{ client.Client }

// Patch applies with the value that such a policy leaves.
func (c changesData) Patch(ctx context.Context, object client.Object, patch client.Patch, options ...client.PatchOption) error {
	data, err := patch.Data(object)
	if err != nil {
		return err
	}
	return c.Client.Patch(ctx, object, client.RawPatch(patch.Type(), bytes.ReplaceAll(data, []byte(`"key":"1"`), []byte(`"key":"changed"`))), options...)
}
