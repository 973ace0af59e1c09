package main

import (
	"fmt"
	"strings"
	"time"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// compared are the settings in the table, with what they are for.
var compared = []struct {
	settings rotation.Settings
	purpose  string
}{
	{settingsOf(2160, 1920, 0), "the default of a Headscale without `api_key`"},
	{settingsOf(2160, 240, 0), "few rotations, ten days to notice one that fails"},
	{settingsOf(2160, 1440, 1), "a new key every month"},
	{settingsOf(720, v1beta1.DefaultRotationBuffer(720*time.Hour).Hours(), 0), "`expiration: 720h` alone: 8/9 of it is the buffer"},
	{settingsOf(720, 240, 48), "for consumers that are deployed every other day"},
	{settingsOf(168, 72, 1), "weekly keys, a long weekend to react"},
	{settingsOf(24, 12, 1), "a new key every half day"},
	{settingsOf(1, 0.5, 0), "for trying it out"},
}

// table compares settings.
func table() string {
	var lines strings.Builder
	lines.WriteString("| `expiration` | `rotation_buffer` | `revocation_delay` | a key is in use for | keys in a year | time to put right a rotation that fails | a key that was copied works for at most | good for |\n")
	lines.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, example := range compared {
		s := example.settings
		keys := livesOf(s, 365*day)
		fmt.Fprintf(&lines, "| `%s` | `%s` | `%s` | %s | %d | %s | %s | %s |\n",
			duration(s.Expiration), duration(s.RotationBuffer), duration(s.RevocationDelay),
			words((keys[0].replaced - keys[0].made).Round(time.Minute)), len(keys), words(s.RotationBuffer),
			words((keys[0].refused - keys[0].made).Round(time.Minute)), example.purpose)
	}
	return lines.String()
}

// duration is a length of time as it is written in a resource.
func duration(length time.Duration) string {
	switch {
	case length == 0:
		return "0s"
	case length%time.Hour != 0:
		return fmt.Sprintf("%gm", length.Minutes())
	default:
		return fmt.Sprintf("%gh", length.Hours())
	}
}
