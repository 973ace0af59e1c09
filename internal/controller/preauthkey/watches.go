package preauthkey

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// index finds the HeadscalePreAuthKeys of a Headscale: all, those of a tag, and those that have noted
// a key's id; those of a HeadscaleUser; and those that want a Secret.
const index = "headscale"

// indexed are the values by which a HeadscalePreAuthKey is found.
func indexed(object client.Object) []string {
	key, ok := object.(*v1beta1.HeadscalePreAuthKey)
	if !ok {
		return nil
	}
	of := headscaleOf(key)
	return []string{
		of.String(), taggedKey(of, firstTag(key)), havingKey(of, key.Status.KeyID),
		referringKey(key.Namespace, key.Spec.HeadscaleUserRef), wantingKey(key.Namespace, key.EffectiveSecretName()),
	}
}

// taggedKey finds those whose first tag is one, havingKey those that have noted an id, referringKey
// those of a HeadscaleUser, and wantingKey those that want a Secret. No name has a '/'.
func taggedKey(of client.ObjectKey, tag rotation.Tag) string {
	return of.String() + "/tag/" + strconv.FormatInt(int64(tag.Fraction()), 10)
}
func havingKey(of client.ObjectKey, id uint64) string {
	return of.String() + "/id/" + strconv.FormatUint(id, 10)
}
func referringKey(namespace, user string) string { return namespace + "//user/" + user }
func wantingKey(namespace, secret string) string { return namespace + "//secret/" + secret }

// list lists the HeadscalePreAuthKeys of a value of the index. They are not to be changed.
func (r *Reconciler) list(ctx context.Context, value string) ([]*v1beta1.HeadscalePreAuthKey, error) {
	listed := &v1beta1.HeadscalePreAuthKeyList{}
	if err := r.Client.List(ctx, listed, client.MatchingFields{index: value}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing HeadscalePreAuthKeys: %w", err)
	}
	keys := make([]*v1beta1.HeadscalePreAuthKey, len(listed.Items))
	for i := range listed.Items {
		keys[i] = &listed.Items[i]
	}
	return keys, nil
}

// objectsOf lists what refers to a Headscale, for the look at it.
func (r *Reconciler) objectsOf(ctx context.Context, of client.ObjectKey) ([]client.Object, error) {
	keys, err := r.list(ctx, of.String())
	all := make([]client.Object, len(keys))
	for i, key := range keys {
		all[i] = key
	}
	return all, err
}

// requests asks to reconcile HeadscalePreAuthKeys. A list that fails is one of the cache's own, which
// does not fail once it has started.
func requests(keys []*v1beta1.HeadscalePreAuthKey, _ error) []reconcile.Request {
	all := make([]reconcile.Request, len(keys))
	for i, key := range keys {
		all[i].NamespacedName = keyOf(key)
	}
	return all
}

// keysOfUser finds the keys of a HeadscaleUser.
func (r *Reconciler) keysOfUser(ctx context.Context, user client.Object) []reconcile.Request {
	return requests(r.list(ctx, referringKey(user.GetNamespace(), user.GetName())))
}

// keysOfSecret finds those that want a Secret.
func (r *Reconciler) keysOfSecret(ctx context.Context, secret client.Object) []reconcile.Request {
	return requests(r.list(ctx, wantingKey(secret.GetNamespace(), secret.GetName())))
}

// keysOfHeadscale finds the keys of a Headscale that has changed. It is asked again, also where that
// failed before.
func (r *Reconciler) keysOfHeadscale(ctx context.Context, object client.Object) []reconcile.Request {
	return r.keysOf(ctx, client.ObjectKeyFromObject(object))
}

// keysOfPod finds the keys of the Headscale that a pod is for.
func (r *Reconciler) keysOfPod(ctx context.Context, pod client.Object) []reconcile.Request {
	return r.keysOf(ctx, client.ObjectKey{Namespace: pod.GetNamespace(), Name: resources.InstanceOf(pod.GetLabels())})
}

// keysOf finds the keys of a Headscale.
func (r *Reconciler) keysOf(ctx context.Context, of client.ObjectKey) []reconcile.Request {
	r.Instances.Reset(of)
	return requests(r.list(ctx, of.String()))
}

// keysIn finds the keys in a namespace.
func (r *Reconciler) keysIn(ctx context.Context, namespace client.Object) []reconcile.Request {
	listed := &v1beta1.HeadscalePreAuthKeyList{}
	if err := r.Client.List(ctx, listed, client.InNamespace(namespace.GetName()), client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	all := make([]reconcile.Request, len(listed.Items))
	for i := range listed.Items {
		all[i].NamespacedName = keyOf(&listed.Items[i])
	}
	return all
}

// userMatters reports a HeadscaleUser whose user has become another one.
var userMatters = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, isUser := e.ObjectOld.(*v1beta1.HeadscaleUser)
	after, isOne := e.ObjectNew.(*v1beta1.HeadscaleUser)
	return isUser && isOne && (before.Status.UserID != after.Status.UserID || !before.Status.CreatedAt.Equal(after.Status.CreatedAt) ||
		before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero())
}}

// secretMatters reports a Secret of a pre-auth key that was changed or deleted, whoever did it.
var secretMatters = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		return isKeySecret(e.ObjectNew) && e.ObjectOld.GetResourceVersion() != e.ObjectNew.GetResourceVersion()
	},
	DeleteFunc: func(e event.DeleteEvent) bool { return isKeySecret(e.Object) },
}

func isKeySecret(secret client.Object) bool { return v1beta1.IsPreAuthKeySecret(secret.GetLabels()) }

// differs reports whether an object is to be reconciled because one snapshot follows another: its
// key is another, or one with its tag, or its user, or the policy that its tags stand in.
func differs(object client.Object, before, after *instance.Snapshot) bool {
	key, ok := object.(*v1beta1.HeadscalePreAuthKey)
	if !ok {
		return false
	}
	return keyDiffers(key.Status.KeyID, before, after) || markedDiffer(firstTag(key).Fraction(), before, after) || markedDiffer(secondTag(key).Fraction(), before, after) ||
		userDiffers(key, before, after) || len(key.Spec.Tags) > 0 && before.Policy().Text != after.Policy().Text
}

// concerns reports whether an object is to be reconciled because the operator has changed the policy that
// its tags stand in, or the user that is given by its id.
func concerns(object client.Object, changes instance.Changes) bool {
	key, ok := object.(*v1beta1.HeadscalePreAuthKey)
	if !ok {
		return false
	}
	return changes.Policy && len(key.Spec.Tags) > 0 ||
		key.Spec.UserID != nil && slices.Contains(changes.Users, uint64(*key.Spec.UserID)) //nolint:gosec // admission refuses those below 1
}

// keyDiffers reports whether a key has become another one, or cannot be used any more. Of its text what
// it is known by is compared: what creates a key returns the whole, and lists from 0.28 on do not.
func keyDiffers(id uint64, before, after *instance.Snapshot) bool {
	was, had := before.Key(id)
	is, has := after.Key(id)
	return had != has || idOf(was.Key) != idOf(is.Key) || was.Used != is.Used || was.UserID != is.UserID || !timeOf(was.Expiration).Equal(timeOf(is.Expiration))
}

// markedDiffer reports whether other keys have a tag than before, or one of them differs: the status that names
// the key of an object may not be in the cache yet.
func markedDiffer(fraction time.Duration, before, after *instance.Snapshot) bool {
	ids := after.KeysMarked(fraction)
	return !slices.Equal(before.KeysMarked(fraction), ids) ||
		slices.ContainsFunc(ids, func(id uint64) bool { return keyDiffers(id, before, after) })
}

// userDiffers reports whether the user that is given by its id has come or gone.
func userDiffers(key *v1beta1.HeadscalePreAuthKey, before, after *instance.Snapshot) bool {
	if key.Spec.UserID == nil {
		return false
	}
	id := uint64(*key.Spec.UserID) //nolint:gosec // admission refuses those below 1
	_, had := before.User(id)
	_, has := after.User(id)
	return had != has
}
