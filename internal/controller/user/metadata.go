package user

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// noteCreation notes that a user is about to be created, and that it is to be deleted with the
// object. It reports whether that was not noted before. It fails with errOutdated where the object
// is gone, or is not the one any more that the decision was about.
func (r *Reconciler) noteCreation(ctx context.Context, s *scope) (first bool, err error) {
	err = r.changeMetadata(ctx, s, func(user *v1beta1.HeadscaleUser) error {
		if !sameCreation(user, s.user) {
			return errOutdated
		}
		first = s.user.Retained() || markOf(user) != creatingValue(s.user)
		if !s.user.Retained() { // Else it is left alone whoever made it.
			controllerutil.AddFinalizer(user, v1beta1.FinalizerUser)
			metav1.SetMetaDataAnnotation(&user.ObjectMeta, v1beta1.AnnotationCreating, creatingValue(s.user))
		}
		return nil
	})
	return first, err
}

// sameCreation reports whether an object, as the API server has it, would have the same user
// created as the one in the cache.
func sameCreation(live, cached *v1beta1.HeadscaleUser) bool {
	return live.DeletionTimestamp.IsZero() && live.Status.UserID == cached.Status.UserID && markOf(live) == markOf(cached)
}

// markOf is the mark of an object. One that is too long is none.
func markOf(user *v1beta1.HeadscaleUser) string {
	mark := user.Annotations[v1beta1.AnnotationCreating]
	if len(mark) > maxMark {
		return ""
	}
	return mark
}

// checkMark asks the API server whether the object still has the mark by which alone a user is its own. A
// cache may have one that was taken back because the user was somebody else's.
func (r *Reconciler) checkMark(ctx context.Context, s *scope) error {
	own := s.done.user
	if own.ID == 0 || s.done.adopted || hasRecorded(s.user, &own) {
		return nil
	}
	live, err := r.readLive(ctx, s, "see whether a user is its own")
	if err == nil && !hasRecorded(live, &own) && markOf(live) != markOf(s.user) {
		return errOutdated
	}
	return err
}

// checkNone asks the API server whether an object that is released because it has no user still has none. A cache
// may lack the status that the reconcile before has written, and the user would stay in Headscale.
func (r *Reconciler) checkNone(ctx context.Context, s *scope) error {
	if s.done.action != release || s.done.user.ID != 0 || s.user.Retained() {
		return nil
	}
	live, err := r.readLive(ctx, s, "see whether it has a user")
	if err == nil && (live.Status.UserID != s.user.Status.UserID || markOf(live) != markOf(s.user)) {
		return errOutdated
	}
	return err
}

// forgetCreation takes back what noteCreation noted: there is no user.
func (r *Reconciler) forgetCreation(ctx context.Context, s *scope) error {
	return r.patchMetadata(ctx, s, func(user *v1beta1.HeadscaleUser) {
		controllerutil.RemoveFinalizer(user, v1beta1.FinalizerUser)
		delete(user.Annotations, v1beta1.AnnotationCreating)
	})
}

// syncFinalizer sees to it that the object has a finalizer exactly while it has a user that goes
// with it. While it is not known whether it has one, nothing changes but that none stays with
// the deletion policy Retain.
func (r *Reconciler) syncFinalizer(ctx context.Context, s *scope) error {
	has := controllerutil.ContainsFinalizer(s.user, v1beta1.FinalizerUser)
	retained := isRetained(s)
	switch {
	case !s.user.DeletionTimestamp.IsZero():
		return nil
	case has && retained:
		return r.patchMetadata(ctx, s, func(user *v1beta1.HeadscaleUser) { controllerutil.RemoveFinalizer(user, v1beta1.FinalizerUser) })
	case !has && !retained && s.done.user.ID != 0:
		return r.patchMetadata(ctx, s, func(user *v1beta1.HeadscaleUser) { controllerutil.AddFinalizer(user, v1beta1.FinalizerUser) })
	default:
		return nil
	}
}

// isRetained reports whether the user that the object has now stays in Headscale.
func isRetained(s *scope) bool {
	if s.done.user.ID == 0 {
		return s.user.Retained()
	}
	now := v1beta1.HeadscaleUser{Spec: s.user.Spec, Status: v1beta1.HeadscaleUserStatus{Adopted: s.done.adopted}}
	return now.Retained()
}

// patchMetadata changes the metadata of the object, as the API server has it now. That the object is
// gone is no error.
func (r *Reconciler) patchMetadata(ctx context.Context, s *scope, change func(*v1beta1.HeadscaleUser)) error {
	err := r.changeMetadata(ctx, s, func(user *v1beta1.HeadscaleUser) error {
		change(user)
		return nil
	})
	if isOutdated(err) {
		return nil
	}
	return err
}

// changeMetadata is patchMetadata that fails with errOutdated where the object is gone, or another
// has its name, and with the error of change.
func (r *Reconciler) changeMetadata(ctx context.Context, s *scope, change func(*v1beta1.HeadscaleUser) error) error {
	live, err := r.readLive(ctx, s, "change it")
	if err != nil {
		return err
	}
	changed := live.DeepCopy()
	if err := change(changed); err != nil || equality.Semantic.DeepEqual(live.ObjectMeta, changed.ObjectMeta) {
		return err
	}
	patch := client.MergeFromWithOptions(live, client.MergeFromWithOptimisticLock{})
	return goneIsOutdated(r.Client.Patch(ctx, changed, patch, client.FieldOwner(fieldManager)), "changing the HeadscaleUser")
}

// readLive reads the object from the API server. It fails with errOutdated where the object is gone, or another has its
// name.
func (r *Reconciler) readLive(ctx context.Context, s *scope, purpose string) (*v1beta1.HeadscaleUser, error) {
	live := &v1beta1.HeadscaleUser{}
	if err := r.Live.Get(ctx, keyOf(s.user), live); err != nil {
		return nil, goneIsOutdated(err, "reading the HeadscaleUser to "+purpose)
	}
	if live.UID != s.user.UID {
		return nil, errOutdated
	}
	return live, nil
}

// goneIsOutdated adds what was tried to an error. That the object is gone is errOutdated.
func goneIsOutdated(err error, action string) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return errOutdated
	default:
		return fmt.Errorf("%s: %w", action, err)
	}
}
