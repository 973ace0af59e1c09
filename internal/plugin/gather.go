package plugin

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// describeAll reads the pods and Secrets of Headscales, and reports their state.
func (c *cluster) describeAll(ctx context.Context, headscales []v1beta1.Headscale, namespace string, now time.Time) ([]statusReport, error) {
	look := c.lookAtEach
	if len(headscales) > 1 {
		look = c.lookAtAll
	}
	pods, secrets, err := look(ctx, headscales, namespace)
	if err != nil {
		return nil, err
	}
	reports := make([]statusReport, len(headscales))
	for i := range headscales {
		reports[i] = describe(&headscales[i], pods(&headscales[i]), secrets(&headscales[i]), now)
	}
	return reports, nil
}

// The pod and the Secret of a Headscale, among those that were read.
type (
	podsView    func(*v1beta1.Headscale) podView
	secretsView func(*v1beta1.Headscale) secretView
)

// lookAtEach reads by name, so that permissions for those names are enough. There is one Headscale
// at most.
func (c *cluster) lookAtEach(ctx context.Context, headscales []v1beta1.Headscale, _ string) (podsView, secretsView, error) {
	var pod podView
	var secret secretView
	for i := range headscales {
		var err error
		if pod, err = c.viewPod(ctx, &headscales[i]); err != nil {
			return nil, nil, err
		}
		if secret, err = c.viewSecret(ctx, &headscales[i]); err != nil {
			return nil, nil, err
		}
	}
	return func(*v1beta1.Headscale) podView { return pod }, func(*v1beta1.Headscale) secretView { return secret }, nil
}

// lookAtAll reads with one request for all pods, and one for all Secrets.
func (c *cluster) lookAtAll(ctx context.Context, _ []v1beta1.Headscale, namespace string) (podsView, secretsView, error) {
	pods, err := c.listPods(ctx, namespace)
	podsForbidden := apierrors.IsForbidden(err)
	if err != nil && !podsForbidden {
		return nil, nil, err
	}
	secrets, err := c.listSecretMetadata(ctx, namespace)
	secretsForbidden := apierrors.IsForbidden(err)
	if err != nil && !secretsForbidden {
		return nil, nil, err
	}
	podsByName := map[types.NamespacedName]*corev1.Pod{}
	for i := range pods {
		podsByName[types.NamespacedName{Namespace: pods[i].Namespace, Name: pods[i].Name}] = &pods[i]
	}
	secretsByName := map[types.NamespacedName]*metav1.PartialObjectMetadata{}
	for i := range secrets {
		secretsByName[types.NamespacedName{Namespace: secrets[i].Namespace, Name: secrets[i].Name}] = &secrets[i]
	}
	return func(h *v1beta1.Headscale) podView {
			return podView{podsByName[types.NamespacedName{Namespace: h.Namespace, Name: resources.PodName(h)}], podsForbidden}
		}, func(h *v1beta1.Headscale) secretView {
			return secretView{secretsByName[types.NamespacedName{Namespace: h.Namespace, Name: h.Spec.APIKey.EffectiveSecretName()}], secretsForbidden}
		}, nil
}

// viewPod reads the pod of a Headscale as far as that is allowed.
func (c *cluster) viewPod(ctx context.Context, headscale *v1beta1.Headscale) (podView, error) {
	pod, err := c.pod(ctx, headscale.Namespace, resources.PodName(headscale))
	switch {
	case apierrors.IsForbidden(err):
		return podView{forbidden: true}, nil
	case apierrors.IsNotFound(err):
		return podView{}, nil
	default:
		return podView{pod: pod}, err
	}
}

// viewSecret reads the metadata of a Headscale's Secret as far as that is allowed.
func (c *cluster) viewSecret(ctx context.Context, headscale *v1beta1.Headscale) (secretView, error) {
	metadata, err := c.secretMetadata(ctx, headscale.Namespace, headscale.Spec.APIKey.EffectiveSecretName())
	switch {
	case apierrors.IsForbidden(err):
		return secretView{forbidden: true}, nil
	case apierrors.IsNotFound(err):
		return secretView{}, nil
	default:
		return secretView{metadata: metadata}, err
	}
}
