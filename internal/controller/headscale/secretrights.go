package headscale

import (
	"context"
	"errors"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/resources"
)

// foreignSecrets names the Secrets of the sidecar that somebody else has.
func (r *Reconciler) foreignSecrets(ctx context.Context, s scope, o *observed) ([]string, error) {
	names, err := r.secretsOfSidecar(ctx, s.headscale)
	if err != nil {
		return nil, err
	}
	if err := r.watchReferences(ctx, s.headscale, names); err != nil {
		return nil, err
	}
	var foreign []string
	for _, name := range names {
		secret, err := r.findSecret(ctx, s.headscale.Namespace, name)
		if err != nil {
			return nil, err
		}
		o.noteSecret(s.headscale, name, secret)
		if slices.Contains(r.identitySecret(s.headscale), name) {
			o.identity = secret
		}
		if secret != nil && !r.isSidecars(s.headscale, name, secret) {
			foreign = append(foreign, name)
		}
	}
	return foreign, nil
}

// limitRights takes its rights from a sidecar that has them on a Secret which somebody else
// has: whoever chooses the sidecar's image, or its Secret's name, would have them, too.
func (r *Reconciler) limitRights(ctx context.Context, headscale *v1beta1.Headscale, foreign []string) error {
	var all []error
	for _, name := range foreign {
		all = append(all, r.dropRights(ctx, headscale, name))
	}
	return errors.Join(all...)
}

// watchReferences watches the objects that the Headscale refers to, and those of its sidecar's
// Secrets that the cache does not hold: they are missing, or have another owner. A change after
// this call is reported; one before it is in what the caller reads next.
func (r *Reconciler) watchReferences(ctx context.Context, headscale *v1beta1.Headscale, secrets []string) error {
	references := resources.References(headscale)
	if resources.CheckReferences(references) != nil {
		references = nil // the spec is refused, and none of them is read
	}
	for _, name := range secrets {
		cached, err := readSecret(ctx, r.Client, client.ObjectKey{Namespace: headscale.Namespace, Name: name})
		if err != nil {
			return err
		}
		if !r.isSidecars(headscale, name, cached) {
			references = append(references, resources.Reference{Kind: resources.KindSecret, Name: name})
		}
	}
	r.watches.Sync(client.ObjectKeyFromObject(headscale), watchedReferences(references))
	return nil
}

// secretsOfSidecar names the Secrets that the spec asks for, and those that the Role names:
// it stays as it is while the spec is refused.
func (r *Reconciler) secretsOfSidecar(ctx context.Context, headscale *v1beta1.Headscale) ([]string, error) {
	names := append(secretNameOf(headscale), r.identitySecret(headscale)...)
	role := &rbacv1.Role{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(headscale), role)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("reading Role %s: %w", headscale.Name, err)
	}
	if metav1.IsControlledBy(role, headscale) {
		names = append(names, secretsOf(role)...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// isOurs reports whether a Secret exists and is one that an API Key Manager writes to.
func isOurs(secret *metav1.PartialObjectMetadata) bool {
	return secret != nil && v1beta1.IsAPIKeySecret(secret.Labels)
}

// dropRights takes its rights from a sidecar that has them on a Secret which is another's.
func (r *Reconciler) dropRights(ctx context.Context, headscale *v1beta1.Headscale, secret string) error {
	role := &rbacv1.Role{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(headscale), role)
	if apierrors.IsNotFound(err) || err == nil && !slices.Contains(secretsOf(role), secret) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading Role %s: %w", headscale.Name, err)
	}
	return apply.Delete[rbacv1.Role](ctx, r.Client, r.Client, headscale, headscale.Name)
}

// secretsOf are the names of the Secrets that a Role lets a sidecar manage.
func secretsOf(object client.Object) []string {
	role, ok := object.(*rbacv1.Role)
	if !ok {
		return nil
	}
	var names []string
	for _, rule := range role.Rules {
		names = append(names, rule.ResourceNames...)
	}
	return names
}
