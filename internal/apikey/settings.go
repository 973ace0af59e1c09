package apikey

import (
	"fmt"

	"infrado.cloud/headscale-operator/internal/rotation"
)

// validateSettings returns an error that names the command-line flag that is wrong, and
// what to do about it.
func validateSettings(s rotation.Settings) error {
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
