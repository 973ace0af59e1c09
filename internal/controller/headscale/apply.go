package headscale

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// configuration is an apply configuration, such as
// *corev1.ConfigMapApplyConfiguration.
type configuration[C any] interface {
	comparable
	runtime.ApplyConfiguration
	GetKind() *string
	GetName() *string
	GetNamespace() *string
	WithUID(types.UID) C
	WithResourceVersion(string) C
}

// object is a pointer to an API type, such as *corev1.ConfigMap.
type object[T any] interface {
	*T
	client.Object
}

// kind is how the objects of one kind are compared with what is wanted.
type kind[C, O any] struct {
	// extract returns the fields of a live object that a field manager applied.
	extract func(live O, fieldManager string) (C, error)
	// adopt, where there is one, returns what is wanted with what cannot be changed any
	// more in the object that exists.
	adopt func(want, owned C, live O) C
	// rehearse asks the API server whether it would take a change of an object that
	// exists, before anything is written.
	rehearse bool
	// found, where there is one, is told the newest state of the object.
	found func(O)
	// made, where there is one, is told of an object that was not there before.
	made func(O)
}

// plan is what is to be written, worked out before anything is.
type plan struct {
	reconciler *HeadscaleReconciler
	headscale  *v1beta1.Headscale
	// foreign names the objects that belong to someone else.
	foreign []string
	// rehearsals ask whether writes would be refused.
	rehearsals []func(context.Context) error
	// writes bring an object each to what is wanted.
	writes []func(context.Context) error
}

// carryOut writes what is planned, unless a name is taken by someone else: then
// nothing is written.
func (p *plan) carryOut(ctx context.Context) error {
	if len(p.foreign) > 0 {
		return foreignObjects(p.foreign)
	}
	if err := p.checkWanted(ctx); err != nil {
		return err
	}
	for _, do := range slices.Concat(p.rehearsals, p.writes) {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkWanted asks whether the Headscale is still there before anything is written:
// its objects would otherwise be made again while they are being deleted with it.
func (p *plan) checkWanted(ctx context.Context) error {
	if len(p.writes) == 0 {
		return nil
	}
	live := &v1beta1.Headscale{}
	err := p.reconciler.Live.Get(ctx, client.ObjectKeyFromObject(p.headscale), live)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("asking whether the Headscale is still there: %w", err)
	case err != nil || live.UID != p.headscale.UID || !live.DeletionTimestamp.IsZero():
		return &waitError{v1beta1.ReasonProgressing, "The Headscale is being deleted"}
	default:
		return nil
	}
}

// add looks at one object and plans what it needs. The cache may say that nothing
// is to do. Only the API server may say that something is: what the cache does not
// hold may exist without our labels, and what it holds may be old.
func add[C configuration[C], T any, O object[T]](ctx context.Context, p *plan, want C, k kind[C, O]) error {
	var unwanted C
	if want == unwanted {
		return nil
	}
	seen, err := compare[C, T](ctx, p, p.reconciler.Client, want, k)
	if err != nil || seen.settled {
		return err
	}
	seen, err = compare[C, T](ctx, p, p.reconciler.Live, want, k)
	switch {
	case err != nil || seen.settled:
		return err
	case seen.live != nil && !metav1.IsControlledBy(seen.live, p.headscale):
		p.foreign = append(p.foreign, describe(want))
		return nil
	}
	if k.rehearse && seen.live != nil {
		p.rehearsals = append(p.rehearsals, func(ctx context.Context) error {
			return rehearse(ctx, p.reconciler.Client, seen.want, seen.live)
		})
	}
	p.writes = append(p.writes, func(ctx context.Context) error {
		return write[C, T](ctx, p.reconciler.Client, seen.want, seen.live, k)
	})
	return nil
}

// sight is what a look at an object found.
type sight[C, O any] struct {
	// live is the object, nil where there is none.
	live O
	// want is what is wanted of it.
	want C
	// settled tells that nothing is to do: it is ours and has every field as wanted, or is
	// being deleted, so that it is past changing and the end of it will be heard of.
	settled bool
}

// compare looks at an object.
func compare[C configuration[C], T any, O object[T]](ctx context.Context, p *plan, reader client.Reader, want C, k kind[C, O]) (sight[C, O], error) {
	seen := sight[C, O]{want: want}
	live := O(new(T))
	key := client.ObjectKey{Namespace: *want.GetNamespace(), Name: *want.GetName()}
	err := reader.Get(ctx, key, live)
	switch {
	case apierrors.IsNotFound(err):
		return seen, nil
	case err != nil:
		return seen, fmt.Errorf("reading the %s: %w", describe(want), err)
	}
	seen.live = live
	if !metav1.IsControlledBy(live, p.headscale) {
		return seen, nil
	}
	owned, err := k.extract(live, FieldManager)
	if err != nil {
		return seen, fmt.Errorf("reading the applied fields of the %s: %w", describe(want), err)
	}
	if k.adopt != nil {
		seen.want = k.adopt(want, owned, live)
	}
	seen.settled = !live.GetDeletionTimestamp().IsZero() || equality.Semantic.DeepEqual(owned, seen.want)
	if seen.settled {
		tell(k.found, live)
	}
	return seen, nil
}

// anyVersion is a resource version that no object has: those of stored objects are the
// versions of etcd, which begin with 2. Who applies with it creates, or fails.
const anyVersion = "1"

// write applies an object. One that exists must still be the one that was looked at;
// one that does not must not have come about in the meantime.
func write[C configuration[C], T any, O object[T]](ctx context.Context, writer client.Writer, want C, live O, k kind[C, O]) error {
	options := []client.ApplyOption{client.FieldOwner(FieldManager)}
	if live != nil {
		want = want.WithUID(live.GetUID())
		options = append(options, client.ForceOwnership)
	} else {
		want = want.WithResourceVersion(anyVersion)
	}
	if err := writer.Apply(ctx, want, options...); err != nil {
		return fmt.Errorf("applying the %s: %w", describe(want), err)
	}
	// The reply has been read into what was sent.
	reply, err := json.Marshal(want)
	if err != nil {
		return fmt.Errorf("encoding the %s: %w", describe(want), err)
	}
	written := O(new(T))
	if err := json.Unmarshal(reply, written); err != nil {
		return fmt.Errorf("decoding the %s: %w", describe(want), err)
	}
	tell(k.found, written)
	if live == nil {
		tell(k.made, written)
	}
	return nil
}

// rehearse asks whether an object that exists can be changed to what is wanted. Only a
// refusal of what is wanted is an answer: a webhook that knows no rehearsals, say, leaves
// it to the write.
func rehearse[C configuration[C], O client.Object](ctx context.Context, writer client.Writer, want C, live O) error {
	sent := &unstructured.Unstructured{}
	var err error
	if sent.Object, err = runtime.DefaultUnstructuredConverter.ToUnstructured(want); err != nil {
		return fmt.Errorf("encoding the %s: %w", describe(want), err)
	}
	sent.SetUID(live.GetUID())
	err = writer.Apply(ctx, client.ApplyConfigurationFromUnstructured(sent), client.FieldOwner(FieldManager), client.ForceOwnership, client.DryRunAll)
	if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		return fmt.Errorf("applying the %s: %w", describe(want), err)
	}
	return nil
}

// tell calls a function that need not be there.
func tell[O any](found func(O), live O) {
	if found != nil {
		found(live)
	}
}

// describe names an object for people.
func describe(object interface {
	GetKind() *string
	GetName() *string
},
) string {
	return *object.GetKind() + " " + *object.GetName()
}

// remove deletes an object of a Headscale that is found by a reader. One that belongs to
// someone else is left alone: it is not in the way.
func remove[T any, O object[T]](ctx context.Context, reader client.Reader, writer client.Writer, headscale *v1beta1.Headscale, name string) error {
	live := O(new(T))
	err := reader.Get(ctx, client.ObjectKey{Namespace: headscale.Namespace, Name: name}, live)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for %s %T: %w", name, live, err)
	}
	if !metav1.IsControlledBy(live, headscale) || !live.GetDeletionTimestamp().IsZero() {
		return nil
	}
	uid := live.GetUID()
	err = writer.Delete(ctx, live, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting %s %T: %w", name, live, err)
	}
	return nil
}
