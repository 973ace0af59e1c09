package headscale

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// checkSecretName refuses a Secret that another Headscale manages: two API Key
// Managers would replace each other's keys without end.
func (r *Reconciler) checkSecretName(ctx context.Context, s scope, o *observed) error {
	key := client.ObjectKeyFromObject(s.headscale)
	if !s.headscale.Spec.APIKey.Managed() {
		r.secrets.release(key, client.ObjectKey{})
		return nil
	}
	secret := client.ObjectKey{Namespace: key.Namespace, Name: s.headscale.Spec.APIKey.EffectiveSecretName()}
	r.secrets.release(key, secret)
	owner, err := r.ownerOf(ctx, s.headscale, secret)
	if err != nil || owner == key.Name {
		return err
	}
	o.secret = nil
	o.secretTaken = fmt.Sprintf(
		"Secret %s is already managed for Headscale %s: set spec.api_key.secret_name to another name", secret.Name, owner)
	if err := r.dropRights(ctx, s.headscale, secret.Name); err != nil {
		return err
	}
	return &status.ConflictError{Message: o.secretTaken}
}

// ownerOf is the name of the Headscale that manages a Secret. Who does keeps it:
// another one that is older, and turns to that Secret later, has to wait, also for one
// that turned away and whose sidecar has its rights still.
func (r *Reconciler) ownerOf(ctx context.Context, headscale *v1beta1.Headscale, secret client.ObjectKey) (string, error) {
	r.secrets.lock.Lock()
	defer r.secrets.lock.Unlock()
	managers, err := r.listManagers(ctx, secret.Namespace, secret.Name)
	if err != nil {
		return "", err
	}
	withRights, err := r.listWithRights(ctx, secret)
	if err != nil {
		return "", err
	}
	managers = append(managers, claimantOf(headscale))
	known := slices.Concat(managers, withRights)
	owner, noted := r.secrets.owner[secret]
	if !noted || !slices.ContainsFunc(known, func(c claimant) bool { return c.name == owner && !c.deleted }) {
		owner = oldest(withRights)
	}
	if owner == "" {
		owner = oldest(managers)
	}
	r.secrets.note(secret, owner)
	return owner, nil
}

// claimant is a Headscale that manages a Secret, or would: what decides between them. There may
// be hundreds for one Secret, so that none is copied from the cache whole.
type claimant struct {
	name    string
	created metav1.Time
	deleted bool
}

// claimantOf copies out of a Headscale what decides.
func claimantOf(headscale *v1beta1.Headscale) claimant {
	return claimant{headscale.Name, headscale.CreationTimestamp, !headscale.DeletionTimestamp.IsZero()}
}

// listWithRights lists the Headscales whose sidecar has rights on a Secret. This is how an
// operator that starts knows who manages it.
func (r *Reconciler) listWithRights(ctx context.Context, secret client.ObjectKey) ([]claimant, error) {
	roles := &rbacv1.RoleList{}
	// Nothing below changes what is read.
	err := r.Client.List(ctx, roles, client.InNamespace(secret.Namespace), client.MatchingFields{indexRoleSecret: secret.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("listing the Roles for Secret %s: %w", secret.Name, err)
	}
	var withRights []claimant
	for i := range roles.Items {
		owner := &v1beta1.Headscale{}
		err := r.Client.Get(ctx, client.ObjectKeyFromObject(&roles.Items[i]), owner, client.UnsafeDisableDeepCopy)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading Headscale %s: %w", roles.Items[i].Name, err)
		}
		if err == nil && metav1.IsControlledBy(&roles.Items[i], owner) {
			withRights = append(withRights, claimantOf(owner))
		}
	}
	return withRights, nil
}

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
		if secret != nil && !isOurs(secret) {
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

// watchReferences has changes told of the objects that the Headscale refers to, and of those
// of its sidecar's Secrets that the cache does not hold: they are missing, or somebody else's.
// A change after this is told; one before it is seen by who reads them now.
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
		if !isOurs(cached) {
			references = append(references, resources.Reference{Kind: resources.KindSecret, Name: name})
		}
	}
	r.watches.Sync(client.ObjectKeyFromObject(headscale), watchedReferences(references))
	return nil
}

// secretsOfSidecar names the Secret that the spec asks for, and those that the Role names:
// it stays as it is while the spec is refused.
func (r *Reconciler) secretsOfSidecar(ctx context.Context, headscale *v1beta1.Headscale) ([]string, error) {
	names := secretNameOf(headscale)
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

// secretOwners remembers which Headscale manages a Secret, from the decision until
// its Role shows it: of two that come at once, each could else be found to be the one.
type secretOwners struct {
	lock  sync.Mutex
	owner map[client.ObjectKey]string
}

// note remembers who manages a Secret.
func (s *secretOwners) note(secret client.ObjectKey, headscale string) {
	if s.owner == nil {
		s.owner = map[client.ObjectKey]string{}
	}
	s.owner[secret] = headscale
}

// release forgets what is noted of a Headscale that is gone, or that wants another Secret
// than one.
func (s *secretOwners) release(headscale, except client.ObjectKey) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for secret, name := range s.owner {
		if secret.Namespace == headscale.Namespace && name == headscale.Name && secret != except {
			delete(s.owner, secret)
		}
	}
}

// oldest is the name of the oldest of some Headscales, or "" where there is none that
// stays. Of two that were made in the same second, it is the one whose name comes first.
func oldest(claimants []claimant) string {
	claimants = slices.DeleteFunc(slices.Clone(claimants), func(c claimant) bool { return c.deleted })
	if len(claimants) == 0 {
		return ""
	}
	return slices.MinFunc(claimants, func(a, b claimant) int {
		return cmp.Or(a.created.Compare(b.created.Time), cmp.Compare(a.name, b.name))
	}).name
}
