package headscale

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

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

// listManagers lists the Headscales in a namespace that manage the Secret of a name.
func (r *Reconciler) listManagers(ctx context.Context, namespace, secretName string) ([]claimant, error) {
	headscales := &v1beta1.HeadscaleList{}
	err := r.Client.List(ctx, headscales, client.InNamespace(namespace), client.MatchingFields{indexSecretName: secretName},
		client.UnsafeDisableDeepCopy) // nothing here changes what is listed
	if err != nil {
		return nil, fmt.Errorf("listing the Headscales that manage Secret %s: %w", secretName, err)
	}
	managers := make([]claimant, len(headscales.Items))
	for i := range headscales.Items {
		managers[i] = claimantOf(&headscales.Items[i])
	}
	return managers, nil
}
