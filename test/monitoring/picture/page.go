package main

import (
	"html/template"
	"iter"
	"maps"
)

// keysOf are the keys of the rows.
func keysOf(rows map[string]map[string]string) iter.Seq[string] { return maps.Keys(rows) }

// page is the page with the panels, in colors like those of Grafana's dark theme.
var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>Headscale</title><style>
body { margin: 0; background: #111217; color: #ccccdc; font: 13px "DejaVu Sans", sans-serif; }
main { position: relative; margin: 10px 4px 4px 12px; width: {{.Width}}px; height: {{.Height}}px; }
section { position: absolute; background: #181b1f; border: 1px solid #25282d; border-radius: 3px; overflow: hidden; box-sizing: border-box; }
section h2 { margin: 0; padding: 7px 10px 0; font-size: 13px; font-weight: 600; height: 23px; }
.row { position: absolute; font-size: 15px; font-weight: 600; padding-top: 3px; }
.stat { text-align: center; font-size: 34px; font-weight: 600; padding-top: 14px; }
.stat .name { font-size: 13px; margin-top: -10px; }
svg { display: block; }
svg text { fill: #9fa3ab; font-size: 11px; }
svg text.none { font-size: 14px; }
.grid { stroke: #2a2d33; stroke-width: 1; }
.legend { padding: 2px 10px; white-space: nowrap; overflow: hidden; font-size: 11px; color: #b8bac4; }
.legend span { margin-right: 9px; }
.legend i { display: inline-block; width: 11px; height: 4px; border-radius: 2px; margin: 0 4px 3px 0; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: #6e9fff; font-weight: 600; }
th, td { padding: 7px 10px; border-bottom: 1px solid #25282d; }
.is-yes { color: #73bf69; }
.is-no { color: #f2495c; }
</style></head><body><main>
{{range .Boxes}}{{if .Row}}<div class="row" style="left:{{.X}}px;top:{{.Y}}px">⌄ {{.Title}}</div>
{{else}}<section style="left:{{.X}}px;top:{{.Y}}px;width:{{.W}}px;height:{{.H}}px"><h2>{{.Title}}</h2>{{.Content}}</section>
{{end}}{{end}}</main></body></html>
`))
