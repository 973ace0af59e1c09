package main

import (
	"fmt"
	"time"

	"infrado.cloud/headscale-operator/internal/rotation"
)

// shownDays is how many days the plot of lifetimes shows.
const shownDays = 240

// examples are the settings that are plotted.
var examples = []struct {
	settings  rotation.Settings
	name      string
	barHeight float64
}{
	{settingsOf(2160, 1920, 0), "the default", 4.5},
	{settingsOf(2160, 240, 0), "the samples", 11},
	{settingsOf(720, 240, 48), "short-lived, with a delay", 7},
}

// settingsOf are settings in hours.
func settingsOf(expiration, buffer, delay float64) rotation.Settings {
	length := func(hours float64) time.Duration { return time.Duration(hours * float64(time.Hour)) }
	return rotation.Settings{Expiration: length(expiration), RotationBuffer: length(buffer), RevocationDelay: length(delay)}
}

// lifetimes is a plot of the lives of keys, with a panel for each example.
func lifetimes() string {
	const left, right, top = 24.0, 24.0, 56.0
	c := &canvas{width: 960}
	scale := (c.width - left - right) / shownDays
	x := func(t time.Duration) float64 { return left + scale*min(t.Hours()/24, shownDays) }
	c.legend(left, 28,
		[2]string{inUse, "in the Secret"}, [2]string{retiring, "replaced, good until revocation_delay is over"},
		[2]string{unused, "refused: the rest of its life is not used"})
	y := top
	for _, example := range examples {
		y = panel(c, x, y, left, example.barHeight, example.name, example.settings)
	}
	for days := 0; days <= shownDays; days += 30 {
		c.text(x(time.Duration(days)*day), y+4, "middle", "axis", fmt.Sprint(days))
	}
	c.text(c.width/2, y+24, "middle", "axis", "days since the first key")
	c.height = y + 38
	return c.describe("Lives of keys with three settings of expiration, rotation_buffer and revocation_delay")
}

// panel draws the keys of one example, one below the other, and returns where the next
// one begins.
func panel(c *canvas, x func(time.Duration) float64, y, left, height float64, name string, s rotation.Settings) float64 {
	keys := livesOf(s, shownDays*day)
	c.text(left, y+12, "start", "head", titleOf(s))
	c.text(c.width-left, y+12, "end", "note", name+": a new key every "+words(s.Expiration-s.RotationBuffer))
	y += 24
	step := height + max(2, height/3)
	bottom := y + step*float64(len(keys)) + 2
	for days := 0; days <= shownDays; days += 30 {
		c.line(x(time.Duration(days)*day), y-4, x(time.Duration(days)*day), bottom, grid)
	}
	for _, key := range keys {
		c.rect(x(key.made), y, x(key.expires)-x(key.made), height, unused)
		c.rect(x(key.made), y, x(key.refused)-x(key.made), height, retiring)
		c.rect(x(key.made), y, x(key.replaced)-x(key.made), height, inUse)
		y += step
	}
	return bottom + 20
}

// titleOf names settings as they are written in a resource.
func titleOf(s rotation.Settings) string {
	title := fmt.Sprintf("expiration: %gh, rotation_buffer: %gh", s.Expiration.Hours(), s.RotationBuffer.Hours())
	if s.RevocationDelay > 0 {
		title += fmt.Sprintf(", revocation_delay: %gh", s.RevocationDelay.Hours())
	}
	return title
}

// words is a length of time for people.
func words(length time.Duration) string {
	switch {
	case length == 0:
		return "none"
	case length >= 2*day && length%day > 0:
		return words(length-length%day) + " and " + words(length%day)
	case length >= 2*day:
		return fmt.Sprintf("%g days", length.Hours()/24)
	case length >= time.Hour:
		return fmt.Sprintf("%g h", length.Hours())
	default:
		return fmt.Sprintf("%g min", length.Minutes())
	}
}
