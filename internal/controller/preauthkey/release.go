package preauthkey

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// release expires the key of an object that is being deleted, and removes the finalizer. If the
// namespace is being deleted, too, it waits for nothing.
func (r *Reconciler) release(ctx context.Context, s *scope) error {
	if s.key.Retained() {
		if err := r.syncOwner(ctx, s); err != nil && !s.instance.Namespace.Terminating {
			return err // else the Secret would be collected
		}
	}
	if !hasFinalizer(s.key) || s.key.Retained() {
		return r.letGo(ctx, s)
	}
	err := r.revoke(ctx, s)
	if err != nil && !s.instance.Namespace.Terminating && !instance.IsOutOfReach(err) || instance.IsBusy(err) {
		return err
	}
	if err != nil {
		r.recordEvent(s, true, v1beta1.EventKeyLeft, "Pre-auth key %d stays valid until it expires, although its HeadscalePreAuthKey is deleted: %v", s.key.Status.KeyID, err)
	}
	if err := r.leaveSecret(ctx, s); err != nil && !s.instance.Namespace.Terminating {
		return err
	}
	return r.letGo(ctx, s)
}

// revoke expires every key of the object.
func (r *Reconciler) revoke(ctx context.Context, s *scope) error {
	if err := s.instance.CheckKeys(false, nil); err != nil {
		return err
	}
	var err error
	if s.place, err = s.instance.Enter(r.kind(), s.key); err != nil {
		return err
	}
	rotator, err := r.rotatorOf(ctx, s, r.storeOf(s))
	if err != nil {
		return err
	}
	_, appearsUntil, err := rotator.Abandon(ctx)
	if err != nil {
		return err
	}
	if appearsUntil.After(r.Now()) {
		return status.Later(rotation.PendingInterval, &instance.Problem{Because: v1beta1.ReasonNotReady, Message: fmt.Sprintf(
			"A pre-auth key that was requested from Headscale may still appear; waiting until %s", rotation.ShowTime(appearsUntil))})
	}
	return nil
}

// leaveSecret removes the key from the Secret, if the Secret stays.
func (r *Reconciler) leaveSecret(ctx context.Context, s *scope) error {
	stays, err := r.storeOf(s).leave(ctx)
	if err != nil {
		return fmt.Errorf("taking the key out of Secret %s: %w", s.key.EffectiveSecretName(), err)
	}
	if stays {
		r.recordEvent(s, false, v1beta1.EventSecretLeft, "Secret %s stays, without the key, because it has other entries", s.key.EffectiveSecretName())
	}
	return nil
}

// letGo removes the finalizer, and the in-memory state of the object.
func (r *Reconciler) letGo(ctx context.Context, s *scope) error {
	r.forget(keyOf(s.key))
	if !hasFinalizer(s.key) {
		return nil
	}
	return r.removeFinalizer(ctx, s)
}

func (r *Reconciler) removeFinalizer(ctx context.Context, s *scope) error {
	return r.patchMetadata(ctx, s, false, func(key *v1beta1.HeadscalePreAuthKey) {
		if s.key.Retained() && !key.Retained() {
			return // it was changed meanwhile, and is reconciled again
		}
		controllerutil.RemoveFinalizer(key, v1beta1.FinalizerPreAuthKey)
	})
}

// hold adds the finalizer, unless the key is retained. It fails if the object is gone or being
// deleted, so that no key is created then.
func (r *Reconciler) hold(ctx context.Context, s *scope) error {
	return r.patchMetadata(ctx, s, true, func(key *v1beta1.HeadscalePreAuthKey) {
		if !s.key.Retained() {
			controllerutil.AddFinalizer(key, v1beta1.FinalizerPreAuthKey)
		}
	})
}

// confirmUnused fails with a conflict if the key of an object with reissue: Never was used since Headscale
// was read, so that a Secret that was deleted meanwhile is no reason for another one.
func (r *Reconciler) confirmUnused(ctx context.Context, s *scope) error {
	if !s.want.once || s.want.over || s.key.Status.KeyID == 0 {
		return nil
	}
	return s.instance.Write(ctx, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		keys, err := api.ListPreAuthKeys(ctx, []uint64{s.want.key.UserID})
		if err != nil {
			return err
		}
		for i := range keys {
			if wasUsed(&keys[i], &s.key.Status) {
				snapshot.PutKey(keys[i])
				return apierrors.NewConflict(v1beta1.GroupVersion.WithResource("headscalepreauthkeys").GroupResource(), s.key.Name, errors.New("its pre-auth key was used meanwhile"))
			}
		}
		return nil
	})
}

// syncOwner sees to it that the Secret has the object as its owner, or has not, as deletionPolicy and what
// else is in it say. Headscale is not asked. An object that has neither a finalizer nor a Secret in the
// cache has made none that it owns.
func (r *Reconciler) syncOwner(ctx context.Context, s *scope) error {
	if !hasFinalizer(s.key) {
		secret := &metav1.PartialObjectMetadata{}
		secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
		err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.key.Namespace, Name: s.key.EffectiveSecretName()}, secret)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the metadata of Secret %s: %w", s.key.EffectiveSecretName(), err)
		}
	}
	if err := r.storeOf(s).syncOwner(ctx); err != nil {
		return fmt.Errorf("changing the owner of Secret %s: %w", s.key.EffectiveSecretName(), err)
	}
	return nil
}

// syncFinalizer ensures that the object has a finalizer while its key is to be expired with it. It
// is removed only when its Secret would not be deleted with it.
func (r *Reconciler) syncFinalizer(ctx context.Context, s *scope) error {
	switch {
	case s.key.Retained() && hasFinalizer(s.key):
		if err := r.syncOwner(ctx, s); err != nil {
			return err
		}
		return r.removeFinalizer(ctx, s)
	case !s.key.Retained() && !hasFinalizer(s.key) && s.view.Stored() != nil:
		return r.hold(ctx, s)
	default:
		return nil
	}
}

// errGone says that an object is gone, or being deleted: it is read again.
var errGone = status.Later(time.Second, &instance.Problem{Because: v1beta1.ReasonReconcileFailed, Message: "The HeadscalePreAuthKey is being deleted"})

// patchMetadata changes the metadata of the object, as the API server has it now. That the object is
// gone is an error only where it must exist.
func (r *Reconciler) patchMetadata(ctx context.Context, s *scope, mustExist bool, change func(*v1beta1.HeadscalePreAuthKey)) error {
	live := &v1beta1.HeadscalePreAuthKey{}
	err := r.Live.Get(ctx, keyOf(s.key), live)
	gone := apierrors.IsNotFound(err) || err == nil && (live.UID != s.key.UID || mustExist && !live.DeletionTimestamp.IsZero())
	switch {
	case gone && mustExist:
		return errGone
	case gone:
		return nil
	case err != nil:
		return fmt.Errorf("reading the HeadscalePreAuthKey to change it: %w", err)
	}
	changed := live.DeepCopy()
	change(changed)
	if equality.Semantic.DeepEqual(live.ObjectMeta, changed.ObjectMeta) {
		return nil
	}
	patch := client.MergeFromWithOptions(live, client.MergeFromWithOptimisticLock{})
	err = r.Client.Patch(ctx, changed, patch, client.FieldOwner(fieldManager))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("changing the HeadscalePreAuthKey: %w", err)
	}
	return nil
}
