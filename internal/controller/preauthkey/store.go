package preauthkey

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// secretStore keeps the record of a key in the Secret of its object.
type secretStore struct {
	key    *v1beta1.HeadscalePreAuthKey
	live   client.Reader
	writer client.Writer
	// before is called before the first write: what is written may be about a key.
	before func(ctx context.Context) error

	// current is the Secret as last read or written, nil if there is none. It is read again
	// unless it has just been written.
	current *corev1.Secret
	written bool
}

// Read reads the Secret, unless it has just been written here.
func (s *secretStore) Read(ctx context.Context) (*rotation.Record, error) {
	if !s.written {
		if err := s.read(ctx); err != nil {
			return nil, err
		}
	}
	s.written = false
	if s.current == nil {
		return nil, nil //nolint:nilnil // There is no record, and nothing is wrong with that.
	}
	record := readRecord(s.key, s.current)
	return &record, nil
}

func (s *secretStore) read(ctx context.Context) error {
	secret := &corev1.Secret{}
	err := s.live.Get(ctx, client.ObjectKey{Namespace: s.key.Namespace, Name: s.key.EffectiveSecretName()}, secret)
	switch {
	case apierrors.IsNotFound(err):
		s.current = nil
	case err != nil:
		return err
	default:
		s.current = secret
	}
	return nil
}

// Write makes the Secret say what the record says. Only what changes is sent.
func (s *secretStore) Write(ctx context.Context, record rotation.Record) (rotation.Record, error) {
	s.written = false
	if s.before != nil {
		if err := s.before(ctx); err != nil {
			return rotation.Record{}, err
		}
		s.before = nil
	}
	secret, err := s.write(ctx, record)
	if err != nil {
		return rotation.Record{}, err
	}
	s.current, s.written = secret, true
	return readRecord(s.key, secret), nil
}

func (s *secretStore) write(ctx context.Context, record rotation.Record) (*corev1.Secret, error) {
	if s.current == nil {
		secret := writeRecord(s.key, record, s.newSecret())
		err := s.writer.Create(ctx, secret, client.FieldOwner(fieldManager))
		if apierrors.IsAlreadyExists(err) {
			err = changed(err)
		}
		return secret, err
	}
	return s.patch(ctx, writeRecord(s.key, record, s.current))
}

// patch changes the Secret, if it is still what it was.
func (s *secretStore) patch(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	lock := client.MergeFromWithOptions(s.current, client.MergeFromWithOptimisticLock{})
	err := s.writer.Patch(ctx, secret, lock, client.FieldOwner(fieldManager))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		err = changed(err)
	}
	return secret, err
}

// changed marks an error of a write as one that another read puts right.
func changed(err error) error { return fmt.Errorf("%w: %w", rotation.ErrChanged, err) }

// newSecret is a Secret of the object without anything in it.
func (s *secretStore) newSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.EffectiveSecretName()},
		Type:       corev1.SecretTypeOpaque,
	}
}

// foreignBecause says why the Secret that was read is not the object's; "": it is, or there is none.
func (s *secretStore) foreignBecause() string {
	if s.current == nil {
		return ""
	}
	return foreignBecause(s.key, s.current)
}

// leave takes the key out of a Secret that stays, and reports whether it does: because it holds
// something else. One that holds nothing else goes with the object.
func (s *secretStore) leave(ctx context.Context) (stays bool, err error) {
	if err := s.read(ctx); err != nil {
		return false, err
	}
	switch {
	case !s.isBound():
		return false, nil
	case hasOthers(s.key, s.current):
		_, err = s.patch(ctx, withoutKey(s.key, s.current))
		return true, err
	default:
		return false, s.setOwner(ctx)
	}
}

// syncOwner makes the object the owner of its Secret, or makes it that no longer. A Secret without a
// key is left to the rotation.
func (s *secretStore) syncOwner(ctx context.Context) error {
	if err := s.read(ctx); err != nil {
		return err
	}
	if !s.isBound() {
		return nil
	}
	if !s.key.Retained() && !hasFinalizer(s.key) {
		if noted := readRecord(s.key, s.current); noted.ID == "" && len(noted.Pending) == 0 {
			return nil
		}
		if err := s.before(ctx); err != nil {
			return err
		}
	}
	return s.setOwner(ctx)
}

// isBound reports whether the Secret that was read is the object's, or would go with it.
func (s *secretStore) isBound() bool {
	return s.current != nil && (s.foreignBecause() == "" || metav1.IsControlledBy(s.current, s.key))
}

// setOwner writes who the owner of the Secret is, if that changes.
func (s *secretStore) setOwner(ctx context.Context) error {
	secret := s.current.DeepCopy()
	setOwner(s.key, secret)
	if equality.Semantic.DeepEqual(secret.OwnerReferences, s.current.OwnerReferences) {
		return nil
	}
	_, err := s.patch(ctx, secret)
	return err
}
