package apikey

import (
	"fmt"
	"time"
)

// Settings say how long keys live.
type Settings struct {
	// Expiration is how long a new key is valid.
	Expiration time.Duration
	// RotationBuffer is how long before its expiration a key is replaced.
	RotationBuffer time.Duration
	// RevocationDelay is how long the old key stays valid after a new one was
	// stored. Zero: it is expired at once.
	RevocationDelay time.Duration
}

// Validate returns an error that names the command-line flag that is wrong, and
// what to do about it.
func (s Settings) Validate() error {
	switch {
	case s.Expiration <= 0:
		return fmt.Errorf("--expiration is %s; it must be a positive duration, such as 2160h", s.Expiration)
	case s.RotationBuffer <= 0:
		return fmt.Errorf("--rotation-buffer is %s; it must be a positive duration, such as 240h", s.RotationBuffer)
	case s.RotationBuffer >= s.Expiration:
		return fmt.Errorf("--rotation-buffer (%s) must be less than --expiration (%s): a key is replaced that long before it expires", s.RotationBuffer, s.Expiration)
	case s.RevocationDelay < 0:
		return fmt.Errorf("--revocation-delay is %s; it must not be negative", s.RevocationDelay)
	case s.RevocationDelay >= s.RotationBuffer:
		return fmt.Errorf("--revocation-delay (%s) must be less than --rotation-buffer (%s): the old key expires by itself that long after it was replaced", s.RevocationDelay, s.RotationBuffer)
	}
	return nil
}
