package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html"
	"html/template"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"infrado.cloud/headscale-operator/test/process"
)

const (
	// pageWidth is the width of the page, in pixels, and rowHeight the height of one unit
	// of Grafana's grid, which is 24 units wide.
	pageWidth, rowHeight, gridUnits = 1560, 32, 24
	// headHeight and legendHeight are parts of a panel.
	headHeight, legendHeight = 30, 24
	// resolution is the distance of the values that are drawn where a panel names none.
	resolution = 10 * time.Second
)

// colors are Grafana's names of colors.
var colors = map[string]template.CSS{"green": "#73bf69", "yellow": "#fade2a", "red": "#f2495c", "blue": "#8ab8ff"}

// box is a panel on the page.
type box struct {
	X, Y, W, H int
	Title      string
	Row        bool
	Content    template.HTML
}

// artist draws panels from what Prometheus has.
type artist struct {
	prometheus
	from, to time.Time
}

// draw makes the page of what was recorded.
func draw(ctx context.Context, s settings) error {
	panels, err := readDashboard(filepath.Join(s.root, "charts", "headscale-operator", "files", "dashboard.json"))
	if err != nil {
		return err
	}
	guard, err := process.NewGuard("hs-picture-")
	if err != nil {
		return err
	}
	boxes, err := drawPanels(ctx, s, guard, panels)
	if err := errors.Join(err, guard.Close()); err != nil {
		return err
	}
	file, err := os.Create(s.output)
	if err != nil {
		return err
	}
	height := 0
	for _, b := range boxes {
		height = max(height, b.Y+b.H)
	}
	err = page.Execute(file, map[string]any{"Width": pageWidth, "Height": height, "Boxes": boxes})
	return errors.Join(err, file.Close())
}

// drawPanels draws all panels of a dashboard.
func drawPanels(ctx context.Context, s settings, guard *process.Guard, panels []panel) ([]box, error) {
	server, address, err := startPrometheus(ctx, s, guard)
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	a := artist{prometheus: prometheus{address}}
	if err := a.findTimes(ctx); err != nil {
		return nil, err
	}
	var boxes []box
	for i := range panels {
		b, err := a.draw(ctx, &panels[i])
		if err != nil {
			return nil, err
		}
		boxes = append(boxes, b)
	}
	return boxes, nil
}

// findTimes finds out when was recorded.
func (a *artist) findTimes(ctx context.Context) error {
	now := time.Now()
	const seen = "headscale_operator_build_info"
	lines, err := a.between(ctx, seen, now.Add(-12*time.Hour), now, 15*time.Second)
	if err != nil {
		return err
	}
	if len(lines) == 0 {
		return errors.New("nothing was recorded within twelve hours: picture record does")
	}
	points := lines[0].points
	a.to = points[len(points)-1].at.Add(-time.Minute)
	// Prometheus repeats a last value for five minutes.
	for a.to.After(points[0].at) {
		fresh, err := a.at(ctx, "present_over_time("+seen+"[20s])", a.to)
		if err != nil {
			return err
		}
		if len(fresh) > 0 {
			break
		}
		a.to = a.to.Add(-10 * time.Second)
	}
	a.from = points[0].at
	return nil
}

// draw draws one panel.
func (a *artist) draw(ctx context.Context, p *panel) (box, error) {
	unit := float64(pageWidth) / gridUnits
	b := box{
		X: int(float64(p.GridPos.X) * unit), Y: p.GridPos.Y * rowHeight,
		W: int(float64(p.GridPos.W)*unit) - 8, H: p.GridPos.H*rowHeight - 8, Title: p.Title,
	}
	var err error
	switch p.Type {
	case "row":
		b.Row = true
	case "stat":
		b.Content, err = a.stat(ctx, p)
	case "table":
		b.Content, err = a.table(ctx, p)
	case "timeseries":
		b.Content, err = a.series(ctx, p, b.W, b.H)
	default:
		err = fmt.Errorf("the panel %s has the type %s, which is not known here", p.Title, p.Type)
	}
	return b, err
}

// stat draws one number, or one with a name for each series of a query that has a legend.
func (a *artist) stat(ctx context.Context, p *panel) (template.HTML, error) {
	lines, err := a.at(ctx, withVariables(p.Targets[0].Expr, resolution), a.to)
	if err != nil {
		return "", err
	}
	if len(lines) == 0 {
		return p.number("", p.FieldConfig.Defaults.NoValue, 0), nil
	}
	var numbers template.HTML
	for _, l := range lines {
		value := l.points[0].value
		if p.FieldConfig.Defaults.Unit != "s" {
			value = float64(int(value + 0.5))
		}
		numbers += p.number(legend(p.Targets[0].LegendFormat, l.labels), text(value, p.FieldConfig.Defaults.Unit), value)
	}
	return numbers, nil
}

// number is a value as a stat says it, in its color, under its name if it has one.
func (p *panel) number(name, said string, value float64) template.HTML {
	color := colors["green"]
	for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
		if step.Value == nil || value >= *step.Value {
			color = colors[step.Color]
		}
	}
	if name != "" {
		name = `<div class="name">` + html.EscapeString(name) + `</div>`
	}
	return template.HTML(fmt.Sprintf(`<div class="stat" style="color:%s">%s%s</div>`, color, name, html.EscapeString(said)))
}

// series draws lines or bars over time.
func (a *artist) series(ctx context.Context, p *panel, width, height int) (template.HTML, error) {
	d := &p.FieldConfig.Defaults
	step := resolution
	if p.Interval != "" {
		var err error
		if step, err = time.ParseDuration(p.Interval); err != nil {
			return "", fmt.Errorf("the panel %s: %w", p.Title, err)
		}
	}
	c := &chart{
		width: float64(width), height: float64(height - headHeight - legendHeight), from: a.from, to: a.to, step: step,
		unit: d.Unit, bars: d.Custom.DrawStyle == "bars", stairs: d.Custom.LineInterpolation == "stepAfter",
		whole: d.Decimals != nil && *d.Decimals == 0,
	}
	for _, target := range p.Targets {
		lines, err := a.between(ctx, withVariables(target.Expr, step), a.from, a.to, step)
		if err != nil {
			return "", err
		}
		slices.SortFunc(lines, func(x, y line) int {
			return cmp.Compare(legend(target.LegendFormat, x.labels), legend(target.LegendFormat, y.labels))
		})
		for _, l := range lines {
			c.names = append(c.names, legend(target.LegendFormat, l.labels))
			c.lines = append(c.lines, l.points)
		}
	}
	var legends strings.Builder
	for i, name := range c.names {
		fmt.Fprintf(&legends, `<span><i style="background:%s"></i>%s</span>`, palette[i%len(palette)], html.EscapeString(name))
	}
	return template.HTML(c.render(d.Min, d.Max) + `<div class="legend">` + legends.String() + `</div>`), nil
}

// table draws the rows that the queries have in common.
func (a *artist) table(ctx context.Context, p *panel) (template.HTML, error) {
	rows := map[string]map[string]string{}
	for _, target := range p.Targets {
		lines, err := a.at(ctx, withVariables(target.Expr, resolution), a.to)
		if err != nil {
			return "", err
		}
		for _, l := range lines {
			key := l.labels["namespace"] + "/" + l.labels["name"]
			if rows[key] == nil {
				rows[key] = map[string]string{}
			}
			for label, value := range l.labels {
				rows[key][label] = value
			}
			rows[key]["Value #"+target.RefID] = cell(target.RefID, l.points[0].value)
		}
	}
	order := p.Transformations[len(p.Transformations)-1].Options
	columns := make([]string, len(order.IndexByName))
	for name, at := range order.IndexByName {
		columns[at] = name
	}
	var out strings.Builder
	out.WriteString("<table><tr>")
	for _, column := range columns {
		out.WriteString("<th>" + html.EscapeString(order.RenameByName[column]) + "</th>")
	}
	for _, key := range slices.Sorted(keysOf(rows)) {
		out.WriteString("</tr><tr>")
		for _, column := range columns {
			out.WriteString(`<td class="is-` + html.EscapeString(rows[key][column]) + `">` + html.EscapeString(rows[key][column]) + "</td>")
		}
	}
	return template.HTML(out.String() + "</tr></table>"), nil
}

// cell is a value of the table: whether the Headscale is ready, or a time.
func cell(query string, value float64) string {
	switch {
	case query == "B" && value == 1:
		return "yes"
	case query == "B":
		return "no"
	case query == "A":
		return strconv.FormatFloat(value, 'f', 0, 64)
	default:
		return text(value, "s")
	}
}
