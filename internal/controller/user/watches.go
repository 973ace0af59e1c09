package user

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/resources"
)

// indexed are the values by which a HeadscaleUser is found.
func indexed(object client.Object) []string {
	user, ok := object.(*v1beta1.HeadscaleUser)
	if !ok {
		return nil
	}
	of := headscaleOf(user)
	return []string{of.String(), wantingKey(of, user.Spec.Username), havingKey(of, user.Status.UserID)}
}

// wantingKey finds those that want a username, and havingKey those that have noted an id. No
// name of a Headscale has a '/'.
func wantingKey(of client.ObjectKey, username string) string {
	return of.String() + "/name/" + username
}
func havingKey(of client.ObjectKey, id uint64) string {
	return of.String() + "/id/" + strconv.FormatUint(id, 10)
}

// list lists the HeadscaleUsers of a value of the index. They are not to be changed.
func (r *Reconciler) list(ctx context.Context, value string) ([]*v1beta1.HeadscaleUser, error) {
	listed := &v1beta1.HeadscaleUserList{}
	if err := r.Client.List(ctx, listed, client.MatchingFields{index: value}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing HeadscaleUsers: %w", err)
	}
	users := make([]*v1beta1.HeadscaleUser, len(listed.Items))
	for i := range listed.Items {
		users[i] = &listed.Items[i]
	}
	return users, nil
}

// objectsOf lists what refers to a Headscale, for the look at it.
func (r *Reconciler) objectsOf(ctx context.Context, of client.ObjectKey) ([]client.Object, error) {
	users, err := r.list(ctx, of.String())
	return objects(users), err
}

// objects are HeadscaleUsers as objects.
func objects(users []*v1beta1.HeadscaleUser) []client.Object {
	all := make([]client.Object, len(users))
	for i, user := range users {
		all[i] = user
	}
	return all
}

// requests asks to reconcile HeadscaleUsers. A list that fails is one of the cache's own, which
// does not fail once it has started.
func requests(users []*v1beta1.HeadscaleUser, _ error) []reconcile.Request {
	all := make([]reconcile.Request, len(users))
	for i, user := range users {
		all[i].NamespacedName = keyOf(user)
	}
	return all
}

// rivalsOf finds the others that want a username or a user of an object that has changed, or is gone:
// its user may have another name than it wants.
func (r *Reconciler) rivalsOf(ctx context.Context, object client.Object) []reconcile.Request {
	user, ok := object.(*v1beta1.HeadscaleUser)
	if !ok {
		return nil
	}
	of := headscaleOf(user)
	names := []string{user.Spec.Username}
	if has, found := r.Instances.LastUser(of, user.Status.UserID); found && has.Name != user.Spec.Username {
		names = append(names, has.Name)
	}
	var rivals []reconcile.Request
	for _, name := range names {
		users, err := r.list(ctx, wantingKey(of, name))
		rivals = append(rivals, requests(slices.DeleteFunc(users, func(other *v1beta1.HeadscaleUser) bool { return other.UID == user.UID }), err)...)
	}
	return rivals
}

// wantsOrGone reports an object that wants another name than before, or is gone: of both names, as
// the handler is given both objects.
var wantsOrGone = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, isUser := e.ObjectOld.(*v1beta1.HeadscaleUser)
		after, isOne := e.ObjectNew.(*v1beta1.HeadscaleUser)
		return isUser && isOne && before.Spec.Username != after.Spec.Username
	},
}

// usersOfHeadscale finds the users of a Headscale that has changed. It is asked again, also where
// that failed before.
func (r *Reconciler) usersOfHeadscale(ctx context.Context, object client.Object) []reconcile.Request {
	return r.usersOf(ctx, client.ObjectKeyFromObject(object))
}

// usersOfPod finds the users of the Headscale that a pod is for.
func (r *Reconciler) usersOfPod(ctx context.Context, pod client.Object) []reconcile.Request {
	return r.usersOf(ctx, client.ObjectKey{Namespace: pod.GetNamespace(), Name: resources.InstanceOf(pod.GetLabels())})
}

// usersOf finds the users of a Headscale.
func (r *Reconciler) usersOf(ctx context.Context, of client.ObjectKey) []reconcile.Request {
	r.Instances.Reset(of)
	return requests(r.list(ctx, of.String()))
}

// usersIn finds the users in a namespace, and those that want what these wanted, which may have it if
// the namespace has no access any more.
func (r *Reconciler) usersIn(ctx context.Context, namespace client.Object) []reconcile.Request {
	listed := &v1beta1.HeadscaleUserList{}
	if err := r.Client.List(ctx, listed, client.InNamespace(namespace.GetName()), client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	var all []reconcile.Request
	for i := range listed.Items {
		user := &listed.Items[i]
		all = append(all, reconcile.Request{NamespacedName: keyOf(user)})
		if user.HeadscaleNamespace() != user.Namespace {
			all = append(all, r.rivalsOf(ctx, user)...)
		}
	}
	return all
}

// differs reports whether an object is to be reconciled because one snapshot follows another: its
// user is another, or another has its name, or the nodes or the other users that it waits for are.
func differs(object client.Object, before, after *instance.Snapshot) bool {
	user, ok := object.(*v1beta1.HeadscaleUser)
	if !ok {
		return false
	}
	was, had := before.User(user.Status.UserID)
	is, has := after.User(user.Status.UserID)
	return had != has || was != is || ownID(user, before) != ownID(user, after) ||
		!slices.Equal(before.UsersNamed(user.Spec.Username), after.UsersNamed(user.Spec.Username)) ||
		needsNodes(user) && (before.UserCount() > 1) != (after.UserCount() > 1) ||
		needsNodes(user) && ownNodes(user, before) != ownNodes(user, after)
}

// ownID is the id of the user of an object, which its status may not have yet; 0: it has none.
func ownID(user *v1beta1.HeadscaleUser, snapshot *instance.Snapshot) uint64 {
	own, _ := ownUser(user, snapshot)
	return own.ID
}

// ownNodes names the nodes of the user of an object.
func ownNodes(user *v1beta1.HeadscaleUser, snapshot *instance.Snapshot) string {
	own, found := ownUser(user, snapshot)
	if !found {
		return "" // without a user; those that are listed under none have tags
	}
	return nodeNames(snapshot.NodesOf(own.ID))
}

// nodesMatter is needsNodes, of any object.
func nodesMatter(object client.Object) bool {
	user, ok := object.(*v1beta1.HeadscaleUser)
	return ok && needsNodes(user)
}

// cachedPeers are peers in the cache. Who has no access at the moment wants nothing, but keeps what
// it has.
type cachedPeers struct {
	r   *Reconciler
	ctx context.Context
	of  *instance.Instance
	err error // the first
}

func (p *cachedPeers) wanting(username string) []*v1beta1.HeadscaleUser {
	var allowed []*v1beta1.HeadscaleUser
	for _, user := range p.list(wantingKey(client.ObjectKeyFromObject(p.of.Headscale), username)) {
		allows, err := p.of.AllowsUsersOf(p.ctx, user.Namespace)
		p.note(err)
		if allows {
			allowed = append(allowed, user)
		}
	}
	return allowed
}

func (p *cachedPeers) having(id uint64) []*v1beta1.HeadscaleUser {
	return p.list(havingKey(client.ObjectKeyFromObject(p.of.Headscale), id))
}

func (p *cachedPeers) failed() error { return p.err }

// list lists those of a value of the index.
func (p *cachedPeers) list(value string) []*v1beta1.HeadscaleUser {
	users, err := p.r.list(p.ctx, value)
	p.note(err)
	return users
}

// note keeps the first error.
func (p *cachedPeers) note(err error) {
	if p.err == nil {
		p.err = err
	}
}
