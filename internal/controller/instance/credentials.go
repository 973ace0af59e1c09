package instance

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
)

// target is where a Headscale's admin endpoint is, and in which Secret its key.
type target struct {
	pod     types.UID
	address string
	secret  client.ObjectKey
}

// credentials are what proves to an admin endpoint who asks, and to who asks that it is the one.
// They are kept in memory only, and neither can be printed by accident.
type credentials struct {
	key headscale.Key
	pin headscale.Pin
}

// locate finds the pod of a Headscale in the cache.
func (in *Instances) locate(ctx context.Context, hs *v1beta1.Headscale) (target, error) {
	pod := &corev1.Pod{}
	err := in.Client.Get(ctx, client.ObjectKey{Namespace: hs.Namespace, Name: resources.PodName(hs)}, pod)
	switch {
	case apierrors.IsNotFound(err):
		return target{}, notReady(hs, "it has no pod")
	case err != nil:
		return target{}, fmt.Errorf("reading the pod of Headscale %s/%s: %w", hs.Namespace, hs.Name, err)
	case !pod.DeletionTimestamp.IsZero():
		return target{}, notReady(hs, "its pod is being replaced")
	case pod.Status.PodIP == "" || !IsReady(pod):
		return target{}, notReady(hs, "its pod is not ready")
	default:
		return target{
			pod:     pod.UID,
			address: net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(resources.AdminPort)),
			secret:  client.ObjectKey{Namespace: hs.Namespace, Name: hs.Spec.APIKey.EffectiveSecretName()},
		}, nil
	}
}

// IsReady reports whether Headscale's container is ready. (A pod is not while the API Key Manager
// starts again, which keeps nobody from asking.)
func IsReady(pod *corev1.Pod) bool {
	for i := range pod.Status.ContainerStatuses {
		if state := &pod.Status.ContainerStatuses[i]; state.Name == resources.ContainerHeadscale {
			return state.Ready
		}
	}
	return false
}

// readCredentials reads the key and the pin from the Secret of the API key, which is not in the
// cache.
func (in *Instances) readCredentials(ctx context.Context, hs *v1beta1.Headscale, secret client.ObjectKey) (credentials, error) {
	stored := &corev1.Secret{}
	err := in.Live.Get(ctx, secret, stored)
	switch {
	case apierrors.IsNotFound(err):
		return credentials{}, notReady(hs, fmt.Sprintf("no API key is in Secret %s yet", secret.Name))
	case err != nil:
		return credentials{}, fmt.Errorf("reading the API key of Headscale %s/%s: %w", hs.Namespace, hs.Name, err)
	case !v1beta1.IsAPIKeySecret(stored.Labels):
		return credentials{}, notReady(hs, fmt.Sprintf("Secret %s was not written by an API Key Manager", secret.Name))
	case len(stored.Data[v1beta1.SecretDataKey]) == 0:
		return credentials{}, notReady(hs, fmt.Sprintf("no API key is in Secret %s yet", secret.Name))
	}
	pin, err := headscale.ParsePin(stored.Annotations[v1beta1.AnnotationAdminCertificate])
	if err != nil {
		return credentials{}, &Problem{Because: v1beta1.ReasonEndpointUnreachable, Message: fmt.Sprintf(
			"The API Key Manager of Headscale %s/%s has not reported its admin endpoint yet: Secret %s has no annotation %s; "+
				"an older API Key Manager has none: leave out spec.api_key.manager_image", hs.Namespace, hs.Name, secret.Name, v1beta1.AnnotationAdminCertificate)}
	}
	return credentials{key: headscale.NewKey(string(stored.Data[v1beta1.SecretDataKey])), pin: pin}, nil
}
