package user

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// fieldManager is the name under which the operator owns fields.
const fieldManager = "headscale-operator"

const (
	// reconcileTimeout ends a reconcile that hangs.
	reconcileTimeout = time.Minute
	// renameRetry is how long until it is looked again whether another user was renamed.
	renameRetry = time.Second
	// refusedRetry is how long until something is tried again that Headscale refused: it may have
	// been out of order.
	refusedRetry = time.Minute
	// namespaceRetry is how long until it is looked again whether the namespace of an object that is
	// being deleted is, too, where namespaces are not watched.
	namespaceRetry = 10 * time.Second
)

// What the operator may do with HeadscaleUsers. It patches finalizers and annotations.
//
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscaleusers,verbs=get;list;patch;watch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscaleusers/status,verbs=patch

// Reconciler reconciles HeadscaleUsers with the users of their Headscales.
type Reconciler struct {
	// Client reads from the cache, and writes.
	Client client.Client
	// Live reads from the API server. Nothing is written before it was asked.
	Live client.Reader
	// Instances leads to the Headscales.
	Instances *instance.Instances
	// Now is the clock.
	Now func() time.Time
	// Events takes the events for users; left out, those of the manager.
	Events status.Recorder

	// kind is what Instances know of HeadscaleUsers; made by SetupWithManager.
	kind *instance.Kind
}

// scope is what one reconcile is about.
type scope struct {
	user *v1beta1.HeadscaleUser
	now  time.Time
	// instance is the Headscale.
	instance *instance.Instance
	// place is that among those that wait for the Headscale; nil: there is none.
	place *instance.Place
	// done is what was decided, and came of it.
	done decision
}

// Reconcile reconciles one HeadscaleUser with its user, and reports in its status.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.fetch(ctx, request)
	if s == nil {
		return reconcile.Result{}, err
	}
	err = status.Recovered(ctx, v1beta1.KindUser, func() error { return r.sync(ctx, s) })
	return r.report(ctx, s, err)
}

// fetch reads the HeadscaleUser. One that is gone needs nothing.
func (r *Reconciler) fetch(ctx context.Context, request reconcile.Request) (*scope, error) {
	user := &v1beta1.HeadscaleUser{}
	if err := r.Client.Get(ctx, request.NamespacedName, user); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("reading the HeadscaleUser: %w", err)
	}
	return &scope{user: user, now: r.Now()}, nil
}

// sync does what is to be done.
func (r *Reconciler) sync(ctx context.Context, s *scope) error {
	defer func() { s.place.Leave() }()
	f, err := r.gather(ctx, s)
	if err != nil {
		return err
	}
	if s.done, err = f.decide(); err != nil {
		return err
	}
	if err := r.checkMark(ctx, s); err != nil {
		return err
	}
	if err := r.checkNone(ctx, s); err != nil {
		return err
	}
	if s.getsUser() {
		if err := s.instance.ConfirmUsers(ctx); err != nil {
			return err
		}
	}
	switch s.done.action {
	case create:
		return r.create(ctx, s, f)
	case rename:
		return r.rename(ctx, s, f)
	case remove:
		return r.remove(ctx, s, f)
	case release:
		return r.release(ctx, s)
	default:
		return errors.Join(r.kept(s), r.syncFinalizer(ctx, s))
	}
}

// getsUser reports whether the object is to have a user that it did not have before: a new one, or one that exists.
func (s *scope) getsUser() bool {
	return s.done.action == create || s.done.adopted && s.done.user.ID != s.user.Status.UserID
}

// kept is why everything is left as it is. Where namespaces are not watched, nothing reports when an
// object that is being deleted is to be let go because its namespace is, too.
func (r *Reconciler) kept(s *scope) error {
	if s.done.err == nil || s.user.DeletionTimestamp.IsZero() || r.Instances.AllNamespaces {
		return s.done.err
	}
	return status.Later(namespaceRetry, s.done.err)
}

// gather finds out what a decision depends on.
func (r *Reconciler) gather(ctx context.Context, s *scope) (*facts, error) {
	var err error
	if s.instance, err = r.Instances.Find(ctx, s.user.Namespace, headscaleOf(s.user)); err != nil {
		return nil, err
	}
	f := &facts{user: s.user, terminating: s.instance.Namespace.Terminating, problem: s.instance.CheckUsers()}
	if f.problem == nil {
		err = r.gatherFromHeadscale(ctx, s, f)
	}
	return f, err
}

// gatherFromHeadscale finds out what a Headscale within reach has. It fails where others wait for that
// one already.
func (r *Reconciler) gatherFromHeadscale(ctx context.Context, s *scope, f *facts) error {
	var err error
	if s.place, err = s.instance.Enter(r.kind, s.user); err != nil {
		return err
	}
	f.keysAtRisk = mayDeleteAllKeys(s.instance.Headscale)
	f.peers = &cachedPeers{r: r, ctx: ctx, of: s.instance}
	read := s.instance.Snapshot
	if needsNodes(s.user) {
		read = s.instance.Nodes
	}
	if f.snapshot, f.problem = read(ctx); instance.IsBusy(f.problem) {
		return f.problem
	}
	return nil
}

// decide is the decision, unless a fact could not be read on the way.
func (f *facts) decide() (decision, error) {
	d := decide(f)
	if f.peers == nil {
		return d, nil
	}
	return d, f.peers.failed()
}

// headscaleOf is the Headscale that a user belongs to.
func headscaleOf(user *v1beta1.HeadscaleUser) client.ObjectKey {
	return client.ObjectKey{Namespace: user.HeadscaleNamespace(), Name: user.Spec.HeadscaleRef}
}

// needsNodes reports whether decisions about an object depend on nodes.
func needsNodes(user *v1beta1.HeadscaleUser) bool {
	return !user.DeletionTimestamp.IsZero() && controllerutil.ContainsFinalizer(user, v1beta1.FinalizerUser) && !user.Retained()
}

// create creates the user. Before, it is noted that this is about to happen, so that the user is
// known as the object's own if nothing after it happens.
func (r *Reconciler) create(ctx context.Context, s *scope, f *facts) error {
	first, err := r.noteCreation(ctx, s)
	if err != nil {
		return err
	}
	faultpoint(stepNote)
	err = r.write(ctx, s, f, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		made, err := createUser(ctx, api, snapshot, newUser(s.user, s.done.name))
		if err != nil {
			return refusal(fmt.Sprintf("create user %s", s.done.name), err)
		}
		faultpoint(stepCreate)
		snapshot.PutUser(made)
		s.done.user = made
		return nil
	})
	if err != nil && !mayHaveHappened(err, first) {
		return errors.Join(err, r.forgetCreation(ctx, s))
	}
	return err
}

// rename gives the user another name. After a third name on the way, there is more to do.
func (r *Reconciler) rename(ctx context.Context, s *scope, f *facts) error {
	before := s.done.user
	err := r.write(ctx, s, f, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		if err := renameUser(ctx, api, before.ID, s.done.name); err != nil {
			return refusal(fmt.Sprintf("rename user %s (id %d) to %s", before.Name, before.ID, s.done.name), err)
		}
		faultpoint(stepRename)
		before.Name = s.done.name
		snapshot.PutUser(before)
		return nil
	})
	if err != nil {
		return err
	}
	r.recordEvent(s, v1beta1.EventUserRenamed, "Renamed user %s (id %d) to %s", s.done.user.Name, before.ID, s.done.name)
	r.kind.Enqueue(ctx, objects(f.peers.wanting(s.done.user.Name))...)
	s.done.user = before
	if s.done.name != s.user.Spec.Username {
		s.done.err = waitFor(before, "User %s (id %d) has this name until %s is free", before.Name, before.ID, s.user.Spec.Username).err
	}
	return errors.Join(s.done.err, r.syncFinalizer(ctx, s))
}

// remove deletes the user from Headscale, and then lets go of the object.
func (r *Reconciler) remove(ctx context.Context, s *scope, f *facts) error {
	gone := s.done.user
	err := r.write(ctx, s, f, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		if err := removeUser(ctx, api, gone.ID); err != nil {
			return removalRefusal(&gone, snapshot, f.keysAtRisk, err)
		}
		faultpoint(stepRemove)
		snapshot.DropUser(gone.ID)
		return nil
	})
	if err != nil {
		if s.instance.Namespace.Terminating && !isUndone(err) {
			s.done.left = err.Error()
			return r.release(ctx, s)
		}
		return err
	}
	r.recordEvent(s, v1beta1.EventUserDeleted, "Deleted user %s (id %d)", gone.Name, gone.ID)
	r.kind.Enqueue(ctx, objects(f.peers.wanting(gone.Name))...)
	return errors.Join(r.wakeDeleted(ctx, s, f), r.release(ctx, s))
}

// wakeDeleted has those reconciled that are being deleted, and may have waited to have the last user.
func (r *Reconciler) wakeDeleted(ctx context.Context, s *scope, f *facts) error {
	if !f.keysAtRisk {
		return nil
	}
	all, err := r.list(ctx, headscaleOf(s.user).String())
	waiting := slices.DeleteFunc(all, func(user *v1beta1.HeadscaleUser) bool { return !needsNodes(user) || user.UID == s.user.UID })
	r.kind.Enqueue(ctx, objects(waiting)...)
	return err
}

// release lets go of an object that is being deleted.
func (r *Reconciler) release(ctx context.Context, s *scope) error {
	if s.done.left != "" {
		r.recordWarning(s, v1beta1.EventUserLeft, "User %s stays in Headscale, although its HeadscaleUser is deleted: %s", s.user.Spec.Username, s.done.left)
	}
	err := r.patchMetadata(ctx, s, func(user *v1beta1.HeadscaleUser) {
		controllerutil.RemoveFinalizer(user, v1beta1.FinalizerUser)
	})
	faultpoint(stepRelease)
	return err
}

// errOutdated says that something has changed since a decision: it is taken again at once.
var errOutdated = status.Later(time.Millisecond, &instance.Problem{Because: v1beta1.ReasonReconcileFailed, Message: "Something has changed meanwhile; it is decided again"})

// isOutdated reports whether a decision has to be taken again.
func isOutdated(err error) bool { return errors.Is(err, errOutdated) }

// isUndone reports whether an error says that nothing was done.
func isUndone(err error) bool { return isOutdated(err) || instance.IsBusy(err) }

// write changes Headscale, if the decision is still the same by what it has at this moment.
func (r *Reconciler) write(ctx context.Context, s *scope, f *facts, change func(context.Context, instance.API, *instance.Snapshot) error) error {
	outdated := false
	err := s.instance.TryWrite(ctx, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		now := *f
		now.snapshot = snapshot
		again, err := now.decide()
		if err != nil {
			return err
		}
		if outdated = again.action != s.done.action || again.name != s.done.name || again.user.ID != s.done.user.ID; outdated {
			return nil
		}
		return change(ctx, api, snapshot)
	})
	if err == nil && outdated {
		return errOutdated
	}
	return err
}

// refusal is what follows from an error of a call that changes something.
func refusal(what string, err error) error {
	var refused *headscale.Refusal
	switch {
	case errors.Is(err, headscale.ErrUserExists), errors.Is(err, headscale.ErrUserNotFound):
		return status.Later(renameRetry, &instance.Problem{Because: v1beta1.ReasonReconcileFailed, Message: fmt.Sprintf("Cannot %s at this moment: %v", what, err), Cause: err})
	case errors.Is(err, headscale.ErrUnauthorized), errors.Is(err, headscale.ErrUnsupported), !errors.As(err, &refused):
		return err
	default:
		return status.Later(refusedRetry, &instance.Problem{Because: v1beta1.ReasonRefused, Lasting: true, Message: fmt.Sprintf("Cannot %s: %s", what, refused.Error()), Cause: err})
	}
}

// mayHaveHappened reports whether a user may exist that was to be created, although there was an
// error: there was no answer, or, where this was not the first attempt, there is such a user.
func mayHaveHappened(err error, first bool) bool {
	var refused *headscale.Refusal
	switch {
	case errors.Is(err, headscale.ErrUserExists), isUndone(err):
		return !first
	case errors.Is(err, headscale.ErrPinMismatch), errors.Is(err, headscale.ErrUnauthorized), errors.Is(err, headscale.ErrUnsupported):
		return false
	default:
		return !errors.As(err, &refused)
	}
}

// removalRefusal is what follows from an error of a deletion. Nodes with tags are listed under no
// user, and up to 0.28 still belong to one.
func removalRefusal(gone *headscale.User, snapshot *instance.Snapshot, atRisk bool, err error) error {
	if !errors.Is(err, headscale.ErrUserHasNodes) {
		return refusal(fmt.Sprintf("delete user %s (id %d)", gone.Name, gone.ID), err)
	}
	message := fmt.Sprintf("User %s (id %d) is not deleted, because Headscale reports that it still has nodes, but does not list them as its own: %v. "+
		"They are probably tagged nodes", gone.Name, gone.ID, err)
	if tagged := snapshot.TaggedNodes(); len(tagged) > 0 {
		message += ", one or more of " + nodeNames(tagged)
	}
	return status.Later(refusedRetry, hasNodes(message, atRisk))
}
