package main

import (
	"fmt"
	"strings"
	"time"
)

// reader is a consumer that learns of a new key some time after it was stored.
type reader struct {
	name string
	lag  time.Duration
}

// readers are examples: how late a consumer is depends on the kubelet and on tools.
var readers = []reader{
	{"Secret, before each call", 0},
	{"mounted file, 90 s late", 90 * time.Second},
	{"file of a copy, 150 s late", 150 * time.Second},
	{"variable, restart after 3 min", 180 * time.Second},
}

// What the plot shows before and after the moment in which a new key is stored.
const (
	shownBefore = time.Minute
	shownAfter  = 6 * time.Minute
)

// delays is a plot of what consumers see of a rotation, without and with a delay.
func delays() string {
	const left, right = 290.0, 28.0
	c := &canvas{width: 960}
	scale := (c.width - left - right) / (shownBefore + shownAfter).Seconds()
	x := func(t time.Duration) float64 { return left + scale*(t+shownBefore).Seconds() }
	c.legend(24, 28, [2]string{inUse, "valid"}, [2]string{retiring, "replaced, still valid"},
		[2]string{works, "calls work"}, [2]string{refused, "calls are refused"})
	y := 56.0
	for _, delay := range []time.Duration{0, 5 * time.Minute} {
		y = moment(c, x, y, delay)
	}
	for minute := -1; minute <= 6; minute++ {
		c.text(x(time.Duration(minute)*time.Minute), y+2, "middle", "axis", strings.Replace(fmt.Sprint(minute), "-", "−", 1))
	}
	c.text(x((shownAfter-shownBefore)/2), y+22, "middle", "axis", "minutes since the new key was stored")
	c.height = y + 36
	return c.describe("What consumers see of a rotation without a revocation_delay, and with one of 5 minutes")
}

// moment draws one rotation, and returns where the next one begins.
func moment(c *canvas, x func(time.Duration) float64, y float64, delay time.Duration) float64 {
	const height, step = 13.0, 22.0
	begin, end := x(-shownBefore), x(shownAfter)
	c.text(24, y+12, "start", "head", fmt.Sprintf("revocation_delay: %s", setting(delay)))
	y += 28
	bottom := y + step*float64(2+len(readers))
	for minute := -1; minute <= 6; minute++ {
		c.line(x(time.Duration(minute)*time.Minute), y-4, x(time.Duration(minute)*time.Minute), bottom, grid)
	}
	row := func(name string) float64 {
		at := y
		c.text(36, at+height-2, "start", "note", name)
		y += step
		return at
	}
	at := row("the old key")
	c.rect(begin, at, x(delay)-begin, height, retiring)
	c.rect(begin, at, x(0)-begin, height, inUse)
	c.rect(x(0), row("the new key"), end-x(0), height, inUse)
	for _, r := range readers {
		at := row("consumer: " + r.name)
		c.rect(begin, at, end-begin, height, works)
		if r.lag > delay {
			c.rect(x(delay), at, x(r.lag)-x(delay), height, refused)
		}
	}
	return bottom + 20
}

// setting is a delay as it is written in a resource.
func setting(delay time.Duration) string {
	if delay == 0 {
		return "0s (the default)"
	}
	return fmt.Sprintf("%gm", delay.Minutes())
}
