package main

import (
	"fmt"
	"html"
	"strings"
)

// Colours that can be told apart also by those who do not see red and green.
const (
	inUse    = "#0072b2"
	retiring = "#e69f00"
	unused   = "#cfe1ee"
	works    = "#009e73"
	refused  = "#d55e00"
	ink      = "#24292f"
	faint    = "#57606a"
	grid     = "#d8dee4"
)

// canvas is an image in the making.
type canvas struct {
	width, height float64
	body          strings.Builder
}

// rect draws a rectangle.
func (c *canvas) rect(x, y, width, height float64, colour string) {
	fmt.Fprintf(&c.body, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5" fill="%s"/>`+"\n", x, y, width, height, colour)
}

// line draws a thin line.
func (c *canvas) line(x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(&c.body, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
}

// text writes a text: its anchor is start, middle or end.
func (c *canvas) text(x, y float64, anchor, class, text string) {
	fmt.Fprintf(&c.body, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`+"\n", x, y, anchor, class, html.EscapeString(text))
}

// legend explains colours in a row.
func (c *canvas) legend(x, y float64, entries ...[2]string) {
	for _, entry := range entries {
		c.rect(x, y-9, 22, 10, entry[0])
		c.text(x+28, y, "start", "note", entry[1])
		x += 50 + 6.4*float64(len(entry[1]))
	}
}

// String is the whole image, with what it shows in words.
func (c *canvas) describe(title string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]g %[2]g" width="%[1]g" height="%[2]g" role="img">
<title>%[3]s</title>
<style>
text { font-family: -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: %[4]s; }
.head { font-size: 15px; font-weight: 600; }
.note { font-size: 12.5px; fill: %[5]s; }
.axis { font-size: 12px; fill: %[5]s; }
</style>
<rect width="%[1]g" height="%[2]g" rx="6" fill="#ffffff"/>
%[6]s</svg>
`, c.width, c.height, html.EscapeString(title), ink, faint, c.body.String())
}
