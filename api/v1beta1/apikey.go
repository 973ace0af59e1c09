package v1beta1

import (
	"fmt"
	"time"
)

// KeyLifetime holds the durations of a key's life.
type KeyLifetime struct {
	// Expiration is how long a new key is valid.
	Expiration time.Duration
	// RotationBuffer is how long before its expiration a key is replaced. It is
	// less than Expiration.
	RotationBuffer time.Duration
	// RevocationDelay is how long a key stays valid after it was replaced. It is
	// zero or less than RotationBuffer.
	RevocationDelay time.Duration
}

// Managed reports whether the API Key Manager is wanted, which it is unless
// auto_manage says false.
func (s *APIKeySpec) Managed() bool {
	return s.AutoManage == nil || *s.AutoManage
}

// EffectiveSecretName is the name of the Secret with the default filled in.
func (s *APIKeySpec) EffectiveSecretName() string {
	if s.SecretName == "" {
		return DefaultSecretName
	}
	return s.SecretName
}

// Lifetime returns the key's durations with the defaults filled in, or an error
// that names the field to change. Admission lets only a spec pass for which it
// returns no error.
func (s *APIKeySpec) Lifetime() (KeyLifetime, error) {
	lifetime := KeyLifetime{Expiration: DefaultExpiration}
	var err error
	if s.Expiration != "" {
		if lifetime.Expiration, err = s.Expiration.Parse(); err != nil {
			return KeyLifetime{}, fmt.Errorf("api_key.expiration: %w", err)
		}
	}
	lifetime.RotationBuffer = DefaultRotationBuffer(lifetime.Expiration)
	if s.RotationBuffer != "" {
		if lifetime.RotationBuffer, err = s.RotationBuffer.Parse(); err != nil {
			return KeyLifetime{}, fmt.Errorf("api_key.rotation_buffer: %w", err)
		}
	}
	if lifetime.RevocationDelay, err = s.RevocationDelay.Parse(); err != nil {
		return KeyLifetime{}, fmt.Errorf("api_key.revocation_delay: %w", err)
	}
	return lifetime, lifetime.validate()
}

// validate reports whether the durations go together.
func (l KeyLifetime) validate() error {
	if l.RotationBuffer >= l.Expiration {
		return fmt.Errorf("api_key.rotation_buffer (%s) must be less than api_key.expiration (%s)", l.RotationBuffer, l.Expiration)
	}
	if l.RevocationDelay > 0 && l.RevocationDelay >= l.RotationBuffer {
		return fmt.Errorf("api_key.revocation_delay (%s) must be less than api_key.rotation_buffer (%s)", l.RevocationDelay, l.RotationBuffer)
	}
	return nil
}
