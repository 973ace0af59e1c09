package headscale

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/kube/refwatch"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// FieldManager is the name under which the operator owns fields.
const FieldManager = "headscale-operator"

// What the operator may do. It must itself have every right that it gives to the API
// Key Manager, which is why it may create, patch, update and watch Secrets. It reads the
// metadata of those with API keys, and the data of those that a Headscale names.
//
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=create;delete;get;list;patch;watch
// +kubebuilder:rbac:groups="",resources=events,verbs=list
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;list;patch;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=create;get;list;patch;update;watch
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=create;get;list;patch;watch
// +kubebuilder:rbac:groups="",resources=services,verbs=create;delete;get;list;patch;watch
// +kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=create;delete;get;list;patch;watch
// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=create;delete;get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscales,verbs=get;list;watch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscales/finalizers,verbs=update
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscales/status,verbs=patch
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=create;delete;get;list;patch;watch
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=roles,verbs=create;delete;get;list;patch;watch
// +kubebuilder:rbac:groups=storage.k8s.io,resources=storageclasses,verbs=get

// Reconciler reconciles a Headscale's child objects with its spec.
type Reconciler struct {
	// Client reads from the cache, which holds what CachedObjects says, and writes.
	Client client.Client
	// Live reads from the API server. Nothing is written before it was asked.
	Live client.Reader
	// Options is what the operator's settings add to every Headscale.
	Options resources.Options
	// AllNamespaces is whether the operator may read in all namespaces, and not only in some.
	AllNamespaces bool
	// Now is the clock.
	Now func() time.Time
	// Events takes the events for users; left out, those of the manager.
	Events status.Recorder

	// watches are those of the objects that Headscales refer to; made by SetupWithManager.
	watches *refwatch.Watches
	// prober asks started Headscales what they are; made by SetupWithManager.
	prober *serverProber
	// backups asks each Litestream how the replication is; made by SetupWithManager.
	backups *backupWatcher
	// references remembers what those objects had.
	references referenceMemory
	// secrets says which Headscale manages which API key Secret.
	secrets secretOwners
	// applied is what the API server made of applies, and which versions of objects are up to date.
	applied apply.Memory
	// conflicts counts optimistic-lock conflicts.
	conflicts conflicts
	// metrics count the errors of reconciles; nil where nobody asked for Collector.
	metrics *collector
}

// scope is what one reconcile is about.
type scope struct {
	headscale *v1beta1.Headscale
	now       time.Time
}

// Reconcile applies one Headscale's child objects and reports on it.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (result reconcile.Result, err error) {
	s, err := r.fetch(ctx, request)
	if s == nil {
		return reconcile.Result{}, err
	}
	var o observed
	defer func() { result, err = r.report(ctx, *s, o, err) }()

	syncErr := status.Recovered(ctx, v1beta1.Kind, func() error { return r.sync(ctx, *s, &o) })
	observeErr := r.observe(ctx, *s, &o)
	r.observeServer(*s, &o)
	r.observeBackup(*s, &o)
	forwardErr := r.forwardRotationRequest(ctx, *s, &o)
	recordErr := r.recordVersion(ctx, *s, o)
	return result, errors.Join(syncErr, observeErr, forwardErr, recordErr)
}

// fetch reads the Headscale. Without one, or with one that is being deleted, there is
// nothing to do: the garbage collector deletes its objects.
func (r *Reconciler) fetch(ctx context.Context, request reconcile.Request) (*scope, error) {
	headscale := &v1beta1.Headscale{}
	if err := r.Client.Get(ctx, request.NamespacedName, headscale); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(request.NamespacedName)
			return nil, nil
		}
		return nil, fmt.Errorf("reading the Headscale: %w", err)
	}
	if !headscale.DeletionTimestamp.IsZero() {
		r.forget(request.NamespacedName)
		return nil, nil
	}
	return &scope{headscale: headscale, now: r.Now()}, nil
}

// forget drops what is kept in memory of a Headscale.
func (r *Reconciler) forget(headscale client.ObjectKey) {
	r.watches.Sync(headscale, nil)
	r.references.forget(headscale)
	r.secrets.release(headscale, client.ObjectKey{})
	r.prober.forget(headscale)
	r.backups.forget(headscale)
	r.metrics.forget(headscale)
	r.applied.Forget(headscale)
	r.conflicts.last(headscale, nil)
}

// sync brings the child objects to their desired state, step by step. What cannot be applied
// does not keep other objects from being applied or deleted, nor the volume from being
// expanded. What it observes on the way is noted.
func (r *Reconciler) sync(ctx context.Context, s scope, o *observed) error {
	foreign, err := r.foreignSecrets(ctx, s, o)
	if err != nil {
		return err
	}
	return errors.Join(r.limitRights(ctx, s.headscale, foreign), r.syncObjects(ctx, s, o))
}

// syncObjects is sync, of all but the rights on Secrets that somebody else has.
func (r *Reconciler) syncObjects(ctx context.Context, s scope, o *observed) error {
	if err := r.observeClaim(ctx, s, o); err != nil {
		return err
	}
	if err := r.observePod(ctx, s, o); err != nil {
		return err
	}
	want, err := r.build(ctx, s, o)
	if err != nil {
		return errors.Join(err, r.keepBackup(ctx, s, o), r.endPreflight(ctx, s, o, err))
	}
	o.warnings, o.oidcIssuer, o.identityKeys = want.Warnings, want.OIDCIssuer, want.IdentityKeys
	changed, err := r.apply(ctx, s, o, want)
	if _, gone := errors.AsType[*apply.OwnerGoneError](err); gone {
		return err
	}
	o.applied = err == nil
	err = errors.Join(err, r.endPreflight(ctx, s, o, err))
	if digestOfPod(o.statefulSet) == want.StatefulSet.Spec.Template.Annotations[resources.AnnotationReferences] {
		r.recordReplacement(s, *o)
	}
	err = errors.Join(err, r.prune(ctx, s, want, changed), r.labelClaim(ctx, s, o), r.labelBackup(ctx, o), r.pruneBackup(ctx, s, o))
	err = errors.Join(err, r.resize(ctx, s, *o, want, err == nil))
	return errors.Join(err, r.verifyBackup(ctx, s, o, want))
}

// build works out the wanted child objects. What Headscale would refuse is refused here,
// before the running pod is changed.
func (r *Reconciler) build(ctx context.Context, s scope, o *observed) (*resources.Objects, error) {
	if err := r.checkSecretName(ctx, s, o); err != nil {
		return nil, err
	}
	draft, err := resources.NewDraft(s.headscale)
	if err != nil {
		return nil, err
	}
	if err := draft.CheckConfigKeys(); err != nil {
		return nil, err
	}
	if err := checkUpgrade(s, *o); err != nil {
		return nil, err
	}
	options := r.Options
	options.SecretIsForeign = o.secret != nil && !isOurs(o.secret)
	options.IdentityIsForeign = identityIsForeign(o)
	if options.References, err = r.referencesDigest(ctx, s, o); err != nil {
		return nil, err
	}
	if options.Backup, err = r.syncBackup(ctx, s, o); err != nil {
		return nil, err
	}
	return draft.Build(options)
}
