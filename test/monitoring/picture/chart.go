package main

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

// palette are the colors of the series of a chart, in their order.
var palette = []string{"#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#b877d9", "#5794f2", "#fade2a", "#56a64b"}

// chart is a panel with lines or bars over time.
type chart struct {
	width, height float64
	from, to      time.Time
	step          time.Duration
	unit          string
	bars, stairs  bool
	// whole: there are no fractions.
	whole     bool
	low, high float64
	names     []string
	lines     [][]point
	svg       strings.Builder
}

// Margins around the plot, in pixels.
const (
	marginLeft   = 62
	marginRight  = 8
	marginTop    = 8
	marginBottom = 22
	// gridLines is how many lines a grid may have.
	gridLines = 5
)

// render draws the chart.
func (c *chart) render(fixedLow, fixedHigh *float64) string {
	c.scale(fixedLow, fixedHigh)
	fmt.Fprintf(&c.svg, `<svg width="%.0f" height="%.0f">`, c.width, c.height)
	c.grid()
	if c.bars {
		c.drawBars()
	} else {
		for i, points := range c.lines {
			c.drawLine(points, palette[i%len(palette)])
		}
	}
	c.svg.WriteString("</svg>")
	return c.svg.String()
}

// scale finds the lowest and the highest value.
func (c *chart) scale(fixedLow, fixedHigh *float64) {
	c.low, c.high = math.Inf(1), math.Inf(-1)
	sums := map[int64]float64{}
	for _, points := range c.lines {
		for _, p := range points {
			value := p.value
			if c.bars {
				sums[p.at.UnixMilli()] += value
				value = sums[p.at.UnixMilli()]
			}
			c.low, c.high = min(c.low, value), max(c.high, value)
		}
	}
	if math.IsInf(c.low, 0) {
		c.low, c.high = 0, 1
	}
	if fixedLow != nil {
		c.low = *fixedLow
	}
	if fixedHigh != nil {
		c.high = *fixedHigh
	}
	if c.high-c.low < 1e-9 {
		c.high = c.low + 1
	}
	if fixedHigh == nil {
		c.high += (c.high - c.low) * 0.08
	}
}

// x and y are where a time and a value are.
func (c *chart) x(at time.Time) float64 {
	part := float64(at.Sub(c.from)) / float64(c.to.Sub(c.from))
	return marginLeft + part*(c.width-marginLeft-marginRight)
}

func (c *chart) y(value float64) float64 {
	part := (value - c.low) / (c.high - c.low)
	return c.height - marginBottom - part*(c.height-marginTop-marginBottom)
}

// grid draws the lines of the grid and what they mean.
func (c *chart) grid() {
	if len(c.lines) == 0 {
		fmt.Fprintf(&c.svg, `<text class="none" x="%.0f" y="%.0f" text-anchor="middle">No data</text>`, (c.width+marginLeft-marginRight)/2, c.height/2)
	}
	for _, value := range ticks(c.low, c.high, c.unit, c.whole) {
		y := c.y(value)
		fmt.Fprintf(&c.svg, `<line class="grid" x1="%d" x2="%.0f" y1="%.1f" y2="%.1f"/>`, marginLeft, c.width-marginRight, y, y)
		fmt.Fprintf(&c.svg, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`, marginLeft-6, y+4, html.EscapeString(text(value, c.unit)))
	}
	every := 5 * time.Minute
	for at := c.from.Truncate(every).Add(every); at.Before(c.to); at = at.Add(every) {
		x := c.x(at)
		fmt.Fprintf(&c.svg, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%.0f"/>`, x, x, marginTop, c.height-marginBottom)
		fmt.Fprintf(&c.svg, `<text x="%.1f" y="%.0f" text-anchor="middle">%s</text>`, x, c.height-6, clock(at))
	}
}

// drawLine draws a series, with gaps where it has no values.
func (c *chart) drawLine(points []point, color string) {
	var path strings.Builder
	var last point
	for i, p := range points {
		switch x, y := c.x(p.at), c.y(p.value); {
		case i == 0 || p.at.Sub(last.at) > c.step+c.step/2:
			fmt.Fprintf(&path, "M%.1f %.1f", x, y)
		case c.stairs:
			fmt.Fprintf(&path, "H%.1fV%.1f", x, y)
		default:
			fmt.Fprintf(&path, "L%.1f %.1f", x, y)
		}
		last = p
	}
	fmt.Fprintf(&c.svg, `<path d="%s" fill="none" stroke="%s" stroke-width="1.6" stroke-linejoin="round" stroke-linecap="round"/>`, path.String(), color)
}

// drawBars draws the series on top of each other, each value over the time that it counts.
func (c *chart) drawBars() {
	sums := map[int64]float64{}
	for i, points := range c.lines {
		for _, p := range points {
			below := sums[p.at.UnixMilli()]
			sums[p.at.UnixMilli()] = below + p.value
			top := c.y(below + p.value)
			left := max(marginLeft, c.x(p.at.Add(-c.step)))
			fmt.Fprintf(&c.svg, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`,
				left, top, max(1, c.x(p.at)-left-1), c.y(below)-top, palette[i%len(palette)])
		}
	}
}
