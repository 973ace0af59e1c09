package resources

import (
	"strings"
	"time"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// durationText is what the user wrote, or else the length in the fewest words:
// 1920h and not 1920h0m0s.
func durationText(written v1beta1.Duration, length time.Duration) string {
	if written != "" {
		return string(written)
	}
	text := length.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
