package preauthkey

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// fieldManager is the name under which the operator owns fields.
const fieldManager = "headscale-operator"

const (
	// reconcileTimeout ends a reconcile that hangs.
	reconcileTimeout = time.Minute
	// userRetry is how long until a missing user is looked up again.
	userRetry = 2 * time.Second
	// refusedRetry is how long until the creation of a key that Headscale refused is retried. The
	// backoff of the rotation still applies: at most once a minute in the end.
	refusedRetry = rotation.MinDelay
	// foreignRetry is how long until a Secret of somebody else is checked again, which no watch
	// reports.
	foreignRetry = 30 * time.Second
	// deleteRetry is how long until the deletion of an expired key is retried. Nothing waits for
	// it.
	deleteRetry = 30 * time.Second
)

// What the operator may do with HeadscalePreAuthKeys and their Secrets. It patches finalizers.
//
// +kubebuilder:rbac:groups="",resources=secrets,verbs=create;get;list;patch;watch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscalepreauthkeys,verbs=get;list;patch;watch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscalepreauthkeys/status,verbs=patch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscaleusers,verbs=get;list;watch

// Reconciler reconciles HeadscalePreAuthKeys with their Secrets and with the keys of their Headscales.
type Reconciler struct {
	// Client reads from the cache, and writes.
	Client client.Client
	// Live reads from the API server: Secrets, which the cache has no data of.
	Live client.Reader
	// Instances gives access to the Headscales.
	Instances *instance.Instances
	// Now is the clock.
	Now func() time.Time
	// Events takes the events for users; left out, those of the manager.
	Events status.Recorder
	// Reached is called after each step of a rotation, for tests that interrupt it; it may be nil.
	Reached func(object client.ObjectKey, step rotation.Step)

	// ownKind is what kind returns; created before the first reconcile.
	ownKind *instance.Kind

	lock sync.Mutex
	// remembered is the in-memory state of the rotation of each object.
	remembered map[client.ObjectKey]*memory
}

// memory is the in-memory state of the rotation of an object between two reconciles. It may be
// lost.
type memory struct {
	// uid is that of the object: another one of the same name may be created later.
	uid   types.UID
	state *rotation.State
	// failed is why the last key could not be created; nil: it was.
	failed error
	// undeleted are the ids of keys that are expired and could not be deleted.
	undeleted map[string]bool
}

// scope is the state of one reconcile.
type scope struct {
	key *v1beta1.HeadscalePreAuthKey
	now time.Time
	// instance is the Headscale.
	instance *instance.Instance
	// place is that among those that wait for the Headscale; nil: there is none.
	place *instance.Place
	// want is the desired key; nil if it is not known.
	want *wanted
	// view is the input of the last decision, and decision its result.
	view     view
	decision rotation.Decision
	// warning is appended to the message of Ready; it does not make the object unready.
	warning string
	// reissued is how many keys were replaced because they were used up.
	reissued int64
}

// Reconcile reconciles one HeadscalePreAuthKey, and reports in its status.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.fetch(ctx, request)
	if s == nil {
		return reconcile.Result{}, err
	}
	err = status.Recovered(ctx, v1beta1.KindPreAuthKey, func() error { return r.sync(ctx, s) })
	return r.report(ctx, s, err)
}

// fetch reads the HeadscalePreAuthKey. One that is gone needs nothing.
func (r *Reconciler) fetch(ctx context.Context, request reconcile.Request) (*scope, error) {
	key := &v1beta1.HeadscalePreAuthKey{}
	err := r.Client.Get(ctx, request.NamespacedName, key)
	if err == nil && key.Spec.Reissue == v1beta1.ReissueNever && status.IsBehind(key) {
		// The deletion of its Secret may be seen before the status that says that its key is over.
		err = r.Live.Get(ctx, request.NamespacedName, key)
	}
	if err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(request.NamespacedName) // it may have had no finalizer
			return nil, nil
		}
		return nil, fmt.Errorf("reading the HeadscalePreAuthKey: %w", err)
	}
	return &scope{key: key, now: r.Now()}, nil
}

// sync creates, rotates or expires the key.
func (r *Reconciler) sync(ctx context.Context, s *scope) error {
	defer func() { s.place.Leave() }()
	var err error
	if s.instance, err = r.Instances.Find(ctx, s.key.Namespace, headscaleOf(s.key)); err != nil {
		return err
	}
	if !s.key.DeletionTimestamp.IsZero() {
		return r.release(ctx, s)
	}
	err = r.keep(ctx, s)
	if instance.IsBusy(err) {
		return err // it is its turn soon
	}
	if err != nil {
		// Whether the Secret stays does not depend on Headscale.
		if ownerErr := r.syncOwner(ctx, s); ownerErr != nil {
			return errors.Join(err, ownerErr)
		}
	}
	return errors.Join(err, r.syncFinalizer(ctx, s))
}

// keep ensures that the Secret holds the desired key.
func (r *Reconciler) keep(ctx context.Context, s *scope) error {
	f, err := r.gather(ctx, s)
	if err != nil {
		return err
	}
	if s.want, err = f.resolve(); err != nil {
		return err
	}
	s.warning = unknownTags(s.want.key.Tags, f.snapshot.Policy().Text)
	return r.rotate(ctx, s)
}

// gather reads what the desired key depends on.
func (r *Reconciler) gather(ctx context.Context, s *scope) (*facts, error) {
	if err := s.instance.CheckKeys(s.key.Spec.HeadscaleUserRef != "", tagsOf(s.key)); err != nil {
		return nil, err
	}
	f := &facts{key: s.key, version: versionOf(s.instance.Headscale), now: s.now}
	var err error
	if s.place, err = s.instance.Enter(r.kind(), s.key); err != nil {
		return nil, err
	}
	if f.snapshot, err = s.instance.Keys(ctx); err != nil {
		return nil, err
	}
	if s.key.Spec.HeadscaleUserRef == "" {
		return f, nil
	}
	user := &v1beta1.HeadscaleUser{}
	err = r.Client.Get(ctx, client.ObjectKey{Namespace: s.key.Namespace, Name: s.key.Spec.HeadscaleUserRef}, user)
	switch {
	case apierrors.IsNotFound(err):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("reading the HeadscaleUser: %w", err)
	}
	f.user = user
	return f, nil
}

// rotate ensures that the Secret holds a valid key. Before anything is written for it, access is confirmed.
func (r *Reconciler) rotate(ctx context.Context, s *scope) error {
	store := r.storeOf(s)
	store.before = func(ctx context.Context) error {
		if err := s.instance.ConfirmKeys(ctx, s.key.Spec.HeadscaleUserRef != "", tagsOf(s.key)); err != nil {
			return err
		}
		if err := r.confirmUnused(ctx, s); err != nil {
			return err
		}
		return r.hold(ctx, s)
	}
	rotator, err := r.rotatorOf(ctx, s, store)
	if err != nil {
		return err
	}
	known := r.memoryOf(s.key)
	s.view, s.decision, err = rotator.Converge(ctx)
	var throttled *rotation.ThrottledError
	switch {
	case errors.As(err, &throttled):
		return status.Later(throttled.Until.Sub(s.now), throttledBy(known.failed, throttled))
	case err != nil:
		known.failed = err
		return err
	}
	known.failed = nil
	if err := r.backendOf(s, s.want).deleteExpired(ctx); err != nil || len(known.undeleted) > 0 {
		s.decision.Next = status.Soonest(s.decision.Next, s.now.Add(deleteRetry))
	}
	if s.decision.Action == rotation.Blocked {
		return blocked(s, store)
	}
	return nil
}

// throttledBy is why a key is not created yet: the error of the last attempt, if it is known.
func throttledBy(failed error, throttled *rotation.ThrottledError) error {
	var reasoned interface{ Reason() string }
	if errors.As(failed, &reasoned) {
		return failed
	}
	return &instance.Problem{Because: v1beta1.ReasonReconcileFailed, Message: throttled.Error()}
}

// blocked is why a Secret is not written to.
func blocked(s *scope, store *secretStore) error {
	message := s.decision.Message
	if why := store.foreignBecause(); why != "" {
		message = fmt.Sprintf("Secret %s %s", s.key.EffectiveSecretName(), why)
	}
	return status.Later(foreignRetry, &instance.Problem{Because: v1beta1.ReasonConflict, Lasting: true, Message: message})
}

// storeOf is the Secret of an object. Before a pending key is recorded in it, the object gets its
// finalizer.
func (r *Reconciler) storeOf(s *scope) *secretStore {
	return &secretStore{key: s.key, live: r.Live, writer: r.Client, before: func(ctx context.Context) error { return r.hold(ctx, s) }}
}

// rotatorOf returns the Rotator for the key of an object.
func (r *Reconciler) rotatorOf(ctx context.Context, s *scope, store *secretStore) (*rotation.Rotator[headscale.PreAuthKey], error) {
	same, err := r.list(ctx, taggedKey(headscaleOf(s.key), firstTag(s.key)))
	if err != nil {
		return nil, err
	}
	want := s.want
	if want == nil {
		want = &wanted{}
	}
	return &rotation.Rotator[headscale.PreAuthKey]{
		Backend: r.backendOf(s, want), Store: store, Observer: &observer{r: r, s: s},
		Rules: rules(want, r.foreign(ctx, s.key)), Settings: want.settings, Tag: tagOf(s.key, same), Clock: r.Now, State: r.memoryOf(s.key).state,
	}, nil
}

// backendOf returns the Backend that creates the keys of an object.
func (r *Reconciler) backendOf(s *scope, want *wanted) *backend {
	return &backend{instance: s.instance, want: want.key, now: r.Now, undeleted: r.memoryOf(s.key).undeleted, failed: func(err error) {
		r.recordEvent(s, true, v1beta1.ReasonRotationFailing, "Expired a pre-auth key, but could not delete it from Headscale's list yet: %v", err)
	}}
}

// foreign reports whether a key is recorded in the status of another object with the same tag. It also
// does so if the objects cannot be listed.
func (r *Reconciler) foreign(ctx context.Context, key *v1beta1.HeadscalePreAuthKey) func(credential) bool {
	return func(found credential) bool {
		others, err := r.list(ctx, havingKey(headscaleOf(key), found.Facts.ID))
		for _, other := range others {
			if other.UID != key.UID && firstTag(other).Fraction() == firstTag(key).Fraction() {
				return true
			}
		}
		return err != nil
	}
}

// memoryOf is the in-memory state of an object.
func (r *Reconciler) memoryOf(key *v1beta1.HeadscalePreAuthKey) *memory {
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.remembered == nil {
		r.remembered = map[client.ObjectKey]*memory{}
	}
	known := r.remembered[keyOf(key)]
	if known == nil || known.uid != key.UID {
		known = &memory{uid: key.UID, state: rotation.NewState(), undeleted: map[string]bool{}}
		r.remembered[keyOf(key)] = known
	}
	return known
}

// forget drops the in-memory state of an object that is deleted.
func (r *Reconciler) forget(object client.ObjectKey) {
	r.lock.Lock()
	defer r.lock.Unlock()
	delete(r.remembered, object)
}

// headscaleOf is the Headscale that a key belongs to.
func headscaleOf(key *v1beta1.HeadscalePreAuthKey) client.ObjectKey {
	return client.ObjectKey{Namespace: key.HeadscaleNamespace(), Name: key.Spec.HeadscaleRef}
}

// keyOf names an object.
func keyOf(key *v1beta1.HeadscalePreAuthKey) client.ObjectKey { return client.ObjectKeyFromObject(key) }

// versionOf is the release of a Headscale: the one that ran last, or else the one in its spec.
func versionOf(hs *v1beta1.Headscale) string {
	if hs.Status.Version != "" {
		return hs.Status.Version
	}
	return hs.Spec.Version
}

// hasFinalizer reports whether an object has the finalizer, which stays until its key is expired.
func hasFinalizer(key *v1beta1.HeadscalePreAuthKey) bool {
	return controllerutil.ContainsFinalizer(key, v1beta1.FinalizerPreAuthKey)
}
