package apikey

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// secretStore keeps the record of the key in a Secret.
type secretStore struct {
	secrets Secrets
	owner   *Owner

	// current is the Secret as last read or written, nil if there is none. It is read
	// again unless it has just been written.
	current *corev1.Secret
	written bool
}

// Read reads the Secret, unless it has just been written here.
func (s *secretStore) Read(ctx context.Context) (*rotation.Record, error) {
	if !s.written {
		secret, err := s.secrets.Get(ctx)
		switch {
		case apierrors.IsNotFound(err):
			secret = nil
		case err != nil:
			return nil, err
		}
		s.current = secret
	}
	s.written = false
	if s.current == nil {
		return nil, nil //nolint:nilnil // There is no record, and nothing is wrong with that.
	}
	record := ReadRecord(s.current)
	return &record, nil
}

// Write makes the Secret say what the record says.
func (s *secretStore) Write(ctx context.Context, record rotation.Record) (rotation.Record, error) {
	secret, err := s.write(ctx, record)
	if err != nil {
		s.invalidate()
		return rotation.Record{}, err
	}
	s.current, s.written = secret, true
	return ReadRecord(secret), nil
}

func (s *secretStore) write(ctx context.Context, record rotation.Record) (*corev1.Secret, error) {
	if s.current == nil {
		secret, err := s.secrets.Create(ctx, WriteRecord(record, s.newSecret()))
		if apierrors.IsAlreadyExists(err) {
			err = changed(err)
		}
		return secret, err
	}
	secret, err := s.secrets.Update(ctx, WriteRecord(record, s.current))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		err = changed(err)
	}
	return secret, err
}

// changed marks an error of a write as one that another read puts right.
func changed(err error) error { return fmt.Errorf("%w: %w", rotation.ErrChanged, err) }

// invalidate has the Secret read again, even if it has just been written.
func (s *secretStore) invalidate() { s.written = false }

// newSecret is a Secret of ours. Only here it gets its owner: where an admission plugin
// guards owner references, giving one to a Secret that exists needs the right to
// delete it.
func (s *secretStore) newSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{OwnerReferences: s.owner.references()},
		Type:       corev1.SecretTypeOpaque,
	}
}

// version is the resource version of the Secret as it is known here, empty if there is
// none.
func (s *secretStore) version() string {
	if s.current == nil {
		return ""
	}
	return s.current.ResourceVersion
}

// request is the Secret's request for a rotation, of whatever length.
func (s *secretStore) request() string {
	if s.current == nil {
		return ""
	}
	return s.current.Annotations[v1beta1.AnnotationRotateRequestedAt]
}

// values are all that the Secret holds, which no message may contain.
func (s *secretStore) values() []string {
	var values []string
	if s.current != nil {
		for _, value := range s.current.Data {
			values = append(values, string(value))
		}
	}
	return values
}
