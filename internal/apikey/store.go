package apikey

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"
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
	keyring Keyring
	// certificate is what the Secret says of the admin endpoint, empty for nothing.
	certificate string
	// certifying bounds how often the certificate is written, by the clock.
	certifying *rate.Limiter
	clock      func() time.Time

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
	record := s.read(s.current)
	return &record, nil
}

// Write makes the Secret say what the record says.
func (s *secretStore) Write(ctx context.Context, record rotation.Record) (rotation.Record, error) {
	before := s.current
	secret, err := s.write(ctx, record)
	if err != nil {
		s.invalidate()
		return rotation.Record{}, err
	}
	if before == nil || before.Annotations[v1beta1.AnnotationAdminCertificate] != s.certificate {
		s.certifying.AllowN(s.clock(), 1)
	}
	s.current, s.written = secret, true
	return s.read(secret), nil
}

// Each Manager has a certificate of its own, so two that share a Secret, as when the node of a
// deleted pod cannot be reached, would replace each other's for ever. What somebody else writes
// is replaced at once, but at most certificateBurst times, and then once in certificateInterval.
const (
	certificateInterval = 10 * time.Minute
	certificateBurst    = 3
)

// read reads a Secret. One without the certificate is not as it would be written here.
func (s *secretStore) read(secret *corev1.Secret) rotation.Record {
	record := ReadRecord(secret)
	record.Regular = record.Regular && s.certified()
	return record
}

// certified reports whether the Secret says of the admin endpoint what it should, or may not
// be corrected yet.
func (s *secretStore) certified() bool {
	return s.current == nil || s.current.Annotations[v1beta1.AnnotationAdminCertificate] == s.certificate ||
		s.certifying.TokensAt(s.clock()) < 1
}

// certify makes the Secret say of the admin endpoint what it should.
func (s *secretStore) certify(secret *corev1.Secret) *corev1.Secret {
	if s.certificate == "" {
		delete(secret.Annotations, v1beta1.AnnotationAdminCertificate)
	} else {
		secret.Annotations[v1beta1.AnnotationAdminCertificate] = s.certificate
	}
	return secret
}

func (s *secretStore) write(ctx context.Context, record rotation.Record) (*corev1.Secret, error) {
	s.announce(record)
	if s.current == nil {
		secret, err := s.secrets.Create(ctx, s.certify(WriteRecord(record, s.newSecret())))
		if apierrors.IsAlreadyExists(err) {
			err = changed(err)
		}
		return secret, err
	}
	secret, err := s.secrets.Update(ctx, s.certify(WriteRecord(record, s.current)))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		err = changed(err)
	}
	return secret, err
}

// announce has a new key accepted before anybody can read it. If it then cannot be stored,
// nobody has it, and it is stored later or expired.
func (s *secretStore) announce(record rotation.Record) {
	key := keyOf(&record)
	if s.current == nil || key != ReadKey(s.current) {
		s.keyring.Accept(record.ID, key, record.Expiration)
	}
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
