package controller

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// adopt, where there is one, changes what is wanted to what cannot be changed any
	// more in the object that exists.
	adopt func(want, owned C, live O)
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
	for _, write := range p.writes {
		if err := write(ctx); err != nil {
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
	_, same, err := compare[C, T](ctx, p, p.reconciler.Client, want, k)
	if err != nil || same {
		return err
	}
	live, same, err := compare[C, T](ctx, p, p.reconciler.Live, want, k)
	switch {
	case err != nil || same:
		return err
	case live != nil && !metav1.IsControlledBy(live, p.headscale):
		p.foreign = append(p.foreign, describe(want))
	default:
		p.writes = append(p.writes, func(ctx context.Context) error {
			return write[C, T](ctx, p.reconciler.Client, want, live, k)
		})
	}
	return nil
}

// compare reads an object, which is nil where there is none, and tells whether it is
// ours and has every field as wanted. One that is being deleted is past changing.
func compare[C configuration[C], T any, O object[T]](ctx context.Context, p *plan, reader client.Reader, want C, k kind[C, O]) (live O, same bool, err error) {
	live = O(new(T))
	key := client.ObjectKey{Namespace: *want.GetNamespace(), Name: *want.GetName()}
	err = reader.Get(ctx, key, live)
	switch {
	case apierrors.IsNotFound(err):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("reading the %s: %w", describe(want), err)
	case !metav1.IsControlledBy(live, p.headscale):
		return live, false, nil
	}
	owned, err := k.extract(live, FieldManager)
	if err != nil {
		return nil, false, fmt.Errorf("reading the applied fields of the %s: %w", describe(want), err)
	}
	if k.adopt != nil {
		k.adopt(want, owned, live)
	}
	if live.GetDeletionTimestamp().IsZero() && !equality.Semantic.DeepEqual(owned, want) {
		return live, false, nil
	}
	tell(k.found, live)
	return live, true, nil
}

// write applies an object. One that exists must still be the one that was looked at;
// one that does not must not have come about in the meantime with other contents.
func write[C configuration[C], T any, O object[T]](ctx context.Context, writer client.Writer, want C, live O, k kind[C, O]) error {
	options := []client.ApplyOption{client.FieldOwner(FieldManager)}
	if live != nil {
		want = want.WithUID(live.GetUID())
		options = append(options, client.ForceOwnership)
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

// remove deletes an object of a Headscale. One that belongs to someone else is left
// alone: it is not in the way.
func remove[T any, O object[T]](ctx context.Context, r *HeadscaleReconciler, headscale *v1beta1.Headscale, name string) error {
	live := O(new(T))
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: headscale.Namespace, Name: name}, live)
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
	err = r.Client.Delete(ctx, live, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting %s %T: %w", name, live, err)
	}
	return nil
}
