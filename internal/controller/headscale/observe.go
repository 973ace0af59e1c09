package headscale

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/internal/resources"
)

// observed is what the cluster has of a Headscale. The reconciler fills it in step by step;
// judgements only read it.
type observed struct {
	// statefulSet is the newest that is known; nil while there is none.
	statefulSet *appsv1.StatefulSet
	// pod is Headscale's; nil while there is none.
	pod *corev1.Pod
	// failedCreate is why Kubernetes did not create the pod, or "".
	failedCreate string
	// eventsForbidden is whether the operator may not read events, which may say so.
	eventsForbidden bool
	// claim is that of the pod's data volume; nil while there is none.
	claim *corev1.PersistentVolumeClaim
	// secret is the metadata of the API key Secret; nil while there is none.
	secret *metav1.PartialObjectMetadata
	// secretRead is whether secret was looked for.
	secretRead bool
	// secretTaken is a sentence that says that another Headscale manages the Secret of that
	// name, or "".
	secretTaken string
	// forwarded is the rotation request that the Secret has, or "".
	forwarded string
	// server is what Headscale reports of itself; zero while nothing is known.
	server serverInfo
	// oidcIssuer is the identity provider of the config, or "".
	oidcIssuer string
	// replaced names the changed objects for which the pod is being replaced.
	replaced []string
	// replacedUnsure is whether any one of them may be the one.
	replacedUnsure bool
	// liveReferences is the digest of what Headscale reads again by itself, or "".
	liveReferences string
	// policy is the policy that the next release finds in its database.
	policy storedPolicy
	// backup is the incarnation of the database; nil where there is no backup.
	backup *v1beta1.BackupStatus
	// replication is what Litestream says of itself; zero while nothing is known.
	replication backupTrack
	// verification is what the status is to say of the last verification of the backup, where
	// verifyKnown is set, and verifyAt when the next one is due, or zero.
	verification *v1beta1.BackupVerification
	verifyKnown  bool
	verifyAt     time.Time
	// identity is the metadata of the Secret for Headscale's private keys; nil while there is none.
	identity *metav1.PartialObjectMetadata
	// identityKeys are the private keys that are to be there.
	identityKeys []string
	// waiting says which changed objects wait for the pod to become ready, or "".
	waiting string
	// preflight is what is known of the preflight of a change.
	preflight preflight
	// applied is whether all objects are as they are wanted.
	applied bool
	// warnings are sentences about what works and should be otherwise.
	warnings []string
}

// observe reads what the status is about and what is not known yet.
func (r *Reconciler) observe(ctx context.Context, s scope, o *observed) error {
	if err := r.observeStatefulSet(ctx, s, o); err != nil {
		return err
	}
	if err := r.observePod(ctx, s, o); err != nil {
		return err
	}
	if err := r.observeFailedCreate(ctx, s, o); err != nil {
		return err
	}
	return r.observeSecret(ctx, s, o)
}

// observePod reads the pod. A pod without an owner is Headscale's, too: its StatefulSet is
// being recreated.
func (r *Reconciler) observePod(ctx context.Context, s scope, o *observed) error {
	o.pod = nil
	if o.statefulSet == nil {
		return nil
	}
	pod := &corev1.Pod{}
	switch err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.headscale.Namespace, Name: resources.PodName(s.headscale)}, pod); {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("reading the pod: %w", err)
	case metav1.IsControlledBy(pod, o.statefulSet) || metav1.GetControllerOf(pod) == nil:
		o.pod = pod
	}
	return nil
}

// reasonFailedCreate is the reason of the event by which the StatefulSet controller says that
// it could not create a pod or its claim.
const reasonFailedCreate = "FailedCreate"

// eventLead is how long before the status of the StatefulSet the event of the same attempt may
// be written.
const eventLead = 5 * time.Second

// observeFailedCreate reads from the events of the StatefulSet why it has no pod. An event from
// before that says nothing. An operator with the role of an earlier release may not read events.
func (r *Reconciler) observeFailedCreate(ctx context.Context, s scope, o *observed) error {
	if o.statefulSet == nil || o.pod != nil || stopped(s.headscale) {
		return nil
	}
	since, known := lastObserved(s, o.statefulSet)
	if !known {
		return nil
	}
	var err error
	o.failedCreate, err = r.failedCreateOf(ctx, o.statefulSet, since)
	if o.eventsForbidden = apierrors.IsForbidden(err); o.eventsForbidden {
		return nil
	}
	return err
}

// failedCreateOf reads from the events of an object since a time why Kubernetes did not create
// its pod; "" where they say nothing.
func (r *Reconciler) failedCreateOf(ctx context.Context, object client.Object, since time.Time) (why string, err error) {
	last := since.Add(-eventLead)
	err = r.eachEvent(ctx, object, func(event *corev1.Event) {
		if event.LastTimestamp.After(last) {
			last, why = event.LastTimestamp.Time, redact.Line(redact.Secrets(event.Message), maxQuote)
		}
	})
	return why, err
}

// How many events of an object are read, and how many at a time: whoever may write events
// may write any number of large ones. Its controller writes a few.
const (
	eventPage     = 50
	maxEventPages = 10
)

// eachEvent calls a function with the events that say why an object has no pod.
func (r *Reconciler) eachEvent(ctx context.Context, object client.Object, tell func(*corev1.Event)) error {
	next := ""
	for range maxEventPages {
		events := &corev1.EventList{}
		err := r.Live.List(ctx, events, client.InNamespace(object.GetNamespace()), client.Limit(eventPage), client.Continue(next),
			client.MatchingFields{"involvedObject.uid": string(object.GetUID()), "reason": reasonFailedCreate})
		if apierrors.IsResourceExpired(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing the events of %s: %w", object.GetName(), err)
		}
		for i := range events.Items {
			tell(&events.Items[i])
		}
		if next = events.Continue; next == "" {
			return nil
		}
	}
	return nil
}

// observeClaim reads the claim of the data volume, which is there before the StatefulSet
// where it was kept from a Headscale of that name. One that was created by hand, or restored
// from a backup, may have no label by which the cache would hold it.
func (r *Reconciler) observeClaim(ctx context.Context, s scope, o *observed) error {
	if err := r.observeStatefulSet(ctx, s, o); err != nil {
		return err
	}
	for _, reader := range []client.Reader{r.Client, r.Live} {
		claim := &corev1.PersistentVolumeClaim{}
		err := reader.Get(ctx, client.ObjectKey{Namespace: s.headscale.Namespace, Name: resources.DataClaimName(s.headscale)}, claim)
		if err == nil {
			o.claim = claim
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading the claim of the data volume: %w", err)
		}
	}
	return nil
}

// observeStatefulSet reads the StatefulSet, unless it is known from the apply.
func (r *Reconciler) observeStatefulSet(ctx context.Context, s scope, o *observed) error {
	if o.statefulSet != nil {
		return nil
	}
	return r.readStatefulSet(ctx, r.Client, s, o)
}

// refreshStatefulSet reads the StatefulSet again: the cache may not have what was applied last.
func (r *Reconciler) refreshStatefulSet(ctx context.Context, s scope, o *observed) error {
	o.statefulSet = nil
	return r.readStatefulSet(ctx, r.Live, s, o)
}

func (r *Reconciler) readStatefulSet(ctx context.Context, reader client.Reader, s scope, o *observed) error {
	found := &appsv1.StatefulSet{}
	err := reader.Get(ctx, client.ObjectKeyFromObject(s.headscale), found)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the StatefulSet: %w", err)
	}
	if metav1.IsControlledBy(found, s.headscale) {
		o.statefulSet = found
	}
	return nil
}

// observeSecret reads the metadata of the API key Secret, unless it is known.
func (r *Reconciler) observeSecret(ctx context.Context, s scope, o *observed) error {
	key := &s.headscale.Spec.APIKey
	if !key.Managed() || o.secretTaken != "" || o.secretRead {
		return nil
	}
	secret, err := r.findSecret(ctx, s.headscale.Namespace, key.EffectiveSecretName())
	o.noteSecret(s.headscale, key.EffectiveSecretName(), secret)
	return err
}

// noteSecret notes a Secret that was looked for, if it is the one that holds the API key.
func (o *observed) noteSecret(headscale *v1beta1.Headscale, name string, secret *metav1.PartialObjectMetadata) {
	if key := &headscale.Spec.APIKey; key.Managed() && name == key.EffectiveSecretName() {
		o.secret, o.secretRead = secret, true
	}
}

// findSecret reads the metadata of a Secret, which is nil where there is none. The cache holds
// those with our labels; one without them blocks the API Key Manager.
func (r *Reconciler) findSecret(ctx context.Context, namespace, name string) (*metav1.PartialObjectMetadata, error) {
	for _, reader := range []client.Reader{r.Client, r.Live} {
		secret, err := readSecret(ctx, reader, client.ObjectKey{Namespace: namespace, Name: name})
		if err != nil || secret != nil {
			return secret, err
		}
	}
	return nil, nil
}

// readSecret reads the metadata of a Secret, which is nil where there is none.
func readSecret(ctx context.Context, reader client.Reader, name client.ObjectKey) (*metav1.PartialObjectMetadata, error) {
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := reader.Get(ctx, name, secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading the metadata of Secret %s: %w", name.Name, err)
	default:
		return secret, nil
	}
}
