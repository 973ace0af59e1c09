package headscale

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// FieldManager is the name under which the operator owns fields.
const FieldManager = "headscale-operator"

// What the operator may do. It must itself have every right that it gives to the API
// Key Manager, which is why it may create, get, patch, update and watch Secrets; it
// reads their metadata only.
//
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=create;get;list;patch;watch
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;list;patch;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=create;get;list;patch;update;watch
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=create;get;list;patch;watch
// +kubebuilder:rbac:groups="",resources=services,verbs=create;delete;get;list;patch;watch
// +kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=create;delete;get;list;patch;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscales,verbs=get;list;watch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscales/finalizers,verbs=update
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscales/status,verbs=patch
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=create;delete;get;list;patch;watch
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=roles,verbs=create;delete;get;list;patch;watch
// +kubebuilder:rbac:groups=storage.k8s.io,resources=storageclasses,verbs=get

// HeadscaleReconciler brings the objects of one Headscale to what it asks for.
type HeadscaleReconciler struct {
	// Client reads from the cache, which holds what CacheOptions says, and writes.
	Client client.Client
	// Live reads from the API server. Nothing is written before it was asked.
	Live client.Reader
	// Options is what the operator's settings add to every Headscale.
	Options resources.Options
	// Now is the clock.
	Now func() time.Time
	// Events takes the events for users; left out, those of the manager.
	Events Recorder

	// watches are those of the objects that Headscales refer to; made by SetupWithManager.
	watches *referenceWatches
	// secrets says who looks after which API key Secret.
	secrets secretHolders
	// metrics count how passes end; nil where nobody asked for Metrics.
	metrics *metrics
}

// pass is what one reconcile knows of a Headscale, more with every step.
type pass struct {
	headscale *v1beta1.Headscale
	now       time.Time
	// objects are what the Headscale wants.
	objects *resources.Objects
	// changed is whether something was to be written.
	changed bool
	// statefulSet is the newest that is known of it; nil while there is none.
	statefulSet *appsv1.StatefulSet
	// grow, where the data volume is to be larger, is what makes it so.
	grow *growth
	// refused is a wish for another volume that cannot be fulfilled.
	refused error
	// pod is Headscale's; nil while there is none.
	pod *corev1.Pod
	// claim is the one of the pod's data volume; nil while there is none.
	claim *corev1.PersistentVolumeClaim
	// secretTaken is a sentence that says that another Headscale looks after the Secret
	// of that name, or "".
	secretTaken string
	// secret is the metadata of the API key Secret; nil while there is none.
	secret *metav1.PartialObjectMetadata
	// handedOn is the rotation request that the Secret knows of, or "".
	handedOn string
}

// Reconcile makes one Headscale's objects what they should be and reports on it.
func (r *HeadscaleReconciler) Reconcile(ctx context.Context, request reconcile.Request) (result reconcile.Result, err error) {
	p, err := r.fetch(ctx, request)
	if p == nil {
		return reconcile.Result{}, err
	}
	defer func() { result, err = r.report(ctx, p, err) }()

	for _, step := range []func(context.Context, *pass) error{r.observeClaim, r.build, r.apply, r.prune, r.resize} {
		if err = step(ctx, p); err != nil {
			break
		}
	}
	return result, errors.Join(err, r.observe(ctx, p), r.handOnRotationRequest(ctx, p), r.noteVersion(ctx, p))
}

// fetch reads the Headscale. Without one, or with one that is being deleted, there
// is nothing to do: the garbage collector deletes its objects.
func (r *HeadscaleReconciler) fetch(ctx context.Context, request reconcile.Request) (*pass, error) {
	headscale := &v1beta1.Headscale{}
	if err := r.Client.Get(ctx, request.NamespacedName, headscale); err != nil {
		if apierrors.IsNotFound(err) {
			r.leave(request.NamespacedName)
			return nil, nil
		}
		return nil, fmt.Errorf("reading the Headscale: %w", err)
	}
	if !headscale.DeletionTimestamp.IsZero() {
		r.leave(request.NamespacedName)
		return nil, nil
	}
	return &pass{headscale: headscale, now: r.Now()}, nil
}

// leave forgets a Headscale.
func (r *HeadscaleReconciler) leave(headscale client.ObjectKey) {
	r.watches.keep(headscale, nil)
	r.secrets.release(headscale, client.ObjectKey{})
	r.metrics.forget(headscale)
}

// build works out the objects that the Headscale wants. What Headscale would refuse
// is refused here, before the pod that runs is touched.
func (r *HeadscaleReconciler) build(ctx context.Context, p *pass) error {
	if err := r.checkSecretName(ctx, p); err != nil {
		return err
	}
	if err := resources.CheckConfigKeys(p.headscale); err != nil {
		return err
	}
	if err := r.checkUpgrade(ctx, p); err != nil {
		return err
	}
	options := r.Options
	var err error
	if options.References, err = r.readReferences(ctx, p); err != nil {
		return err
	}
	p.objects, err = resources.Build(p.headscale, options)
	return err
}
