package rotation

import "time"

// NewExpiration is what a new credential's expiration would be.
func NewExpiration[F any](v View[F]) time.Time { return v.newExpiration() }
