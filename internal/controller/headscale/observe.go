package headscale

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/resources"
)

// observe reads what the status is about and what is not known yet.
func (r *HeadscaleReconciler) observe(ctx context.Context, p *pass) error {
	if err := r.observeStatefulSet(ctx, p); err != nil {
		return err
	}
	if err := r.observePod(ctx, p); err != nil {
		return err
	}
	return r.observeSecret(ctx, p)
}

// observePod reads the pod. One that lost its StatefulSet for a moment, while that is made
// anew, is still the one.
func (r *HeadscaleReconciler) observePod(ctx context.Context, p *pass) error {
	if p.statefulSet == nil {
		return nil
	}
	pod := &corev1.Pod{}
	switch err := r.Client.Get(ctx, client.ObjectKey{Namespace: p.headscale.Namespace, Name: resources.PodName(p.headscale)}, pod); {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("reading the pod: %w", err)
	case metav1.IsControlledBy(pod, p.statefulSet) || metav1.GetControllerOf(pod) == nil:
		p.pod = pod
	}
	return nil
}

// observeClaim reads the claim of the data volume, which is there before the StatefulSet
// where it was kept from a Headscale of that name. One that was made by hand, or put back
// from a backup, may have no label by which the cache would hold it.
func (r *HeadscaleReconciler) observeClaim(ctx context.Context, p *pass) error {
	if err := r.observeStatefulSet(ctx, p); err != nil {
		return err
	}
	for _, reader := range []client.Reader{r.Client, r.Live} {
		claim := &corev1.PersistentVolumeClaim{}
		err := reader.Get(ctx, client.ObjectKey{Namespace: p.headscale.Namespace, Name: resources.DataClaimName(p.headscale)}, claim)
		if err == nil {
			p.claim = claim
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading the claim of the data volume: %w", err)
		}
	}
	return nil
}

// observeStatefulSet reads the StatefulSet, unless it has just been looked at.
func (r *HeadscaleReconciler) observeStatefulSet(ctx context.Context, p *pass) error {
	if p.statefulSet != nil {
		return nil
	}
	live := &appsv1.StatefulSet{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(p.headscale), live)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the StatefulSet: %w", err)
	}
	if metav1.IsControlledBy(live, p.headscale) {
		p.statefulSet = live
	}
	return nil
}

// observeSecret reads the metadata of the API key Secret. The cache holds those with
// our labels; one without them is in the way of the API Key Manager.
func (r *HeadscaleReconciler) observeSecret(ctx context.Context, p *pass) error {
	key := &p.headscale.Spec.APIKey
	if !key.Managed() || p.secretTaken != "" {
		return nil
	}
	name := client.ObjectKey{Namespace: p.headscale.Namespace, Name: key.EffectiveSecretName()}
	for _, reader := range []client.Reader{r.Client, r.Live} {
		secret, err := readSecret(ctx, reader, name)
		if err != nil || secret != nil {
			p.secret = secret
			return err
		}
	}
	return nil
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
