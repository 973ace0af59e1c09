package v1beta1

import "time"

// Defaults of the resource and of the API Key Manager's command line alike.
const (
	// DefaultSocketPath is where Headscale listens for its admin API: the default
	// of Headscale's own unix_socket setting.
	DefaultSocketPath = "/var/run/headscale/headscale.sock"
	// DefaultSecretName is the name of the API key Secret.
	DefaultSecretName = "headscale-api-key"
	// DefaultExpiration is how long a new key is valid: 90 days.
	DefaultExpiration = 2160 * time.Hour
	// DefaultImage is Headscale's image on Docker Hub.
	DefaultImage = "headscale/headscale"
)

// DefaultRotationBuffer is how long before its expiration a key is replaced
// where nobody said otherwise: 8/9 of the expiration, cut to the second, which
// is 1920h of 2160h. An expiration below nine seconds is not cut. The buffer is
// always less than the expiration.
func DefaultRotationBuffer(expiration time.Duration) time.Duration {
	buffer := expiration - max(expiration/9, time.Nanosecond)
	if expiration >= 9*time.Second {
		return buffer.Truncate(time.Second)
	}
	return buffer
}
