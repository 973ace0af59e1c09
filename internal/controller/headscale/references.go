package headscale

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/refwatch"
	"infrado.cloud/headscale-operator/internal/resources"
)

// readReferences is a digest of the versions of the objects that the Headscale refers
// to, or "" where it refers to none. One that does not exist is for the user to make,
// before the pod is touched: the pod could not start without it.
//
// Only metadata is read, so a version that changed is all that can be known: the
// operator never sees what is in the Secrets. It asks the API server, because its cache
// holds its own objects only.
func (r *Reconciler) readReferences(ctx context.Context, headscale *v1beta1.Headscale) (string, error) {
	references := resources.References(headscale)
	if len(references) == 0 {
		return "", nil
	}
	var versions strings.Builder
	for _, reference := range references {
		object := &metav1.PartialObjectMetadata{}
		object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(reference.Kind))
		err := r.Live.Get(ctx, client.ObjectKey{Namespace: headscale.Namespace, Name: reference.Name}, object)
		if apierrors.IsNotFound(err) {
			return "", &resources.InvalidError{Field: reference.Field, Message: fmt.Sprintf(
				"names %s %s, which does not exist: create it, or name another", reference.Kind, reference.Name)}
		}
		if err != nil {
			return "", fmt.Errorf("reading the metadata of %s %s: %w", reference.Kind, reference.Name, err)
		}
		fmt.Fprintf(&versions, "%s/%s@%s:%s\n", reference.Kind, reference.Name, object.UID, object.ResourceVersion)
	}
	digest := sha256.Sum256([]byte(versions.String()))
	return hex.EncodeToString(digest[:]), nil
}

// watchedReferences names the objects to watch for some references.
func watchedReferences(references []resources.Reference) []refwatch.Reference {
	watched := make([]refwatch.Reference, 0, len(references))
	for _, reference := range references {
		resource := "secrets"
		if reference.Kind == resources.KindConfigMap {
			resource = "configmaps"
		}
		watched = append(watched, refwatch.Reference{Resource: resource, Name: reference.Name})
	}
	return watched
}
