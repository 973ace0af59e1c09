package main

import (
	"encoding/json"
	"os"
	"strings"
	"time"
)

// panel is what is drawn of a panel, in Grafana's format.
type panel struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	// Interval is the least distance of the values; empty: as fine as can be seen.
	Interval string `json:"interval"`
	GridPos  struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Targets []struct {
		RefID        string `json:"refId"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
	FieldConfig struct {
		Defaults struct {
			Unit       string   `json:"unit"`
			NoValue    string   `json:"noValue"`
			Min        *float64 `json:"min"`
			Max        *float64 `json:"max"`
			Decimals   *int     `json:"decimals"`
			Thresholds struct {
				Steps []struct {
					Color string   `json:"color"`
					Value *float64 `json:"value"`
				} `json:"steps"`
			} `json:"thresholds"`
			Custom struct {
				DrawStyle         string `json:"drawStyle"`
				LineInterpolation string `json:"lineInterpolation"`
				Stacking          struct {
					Mode string `json:"mode"`
				} `json:"stacking"`
			} `json:"custom"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Transformations []struct {
		ID      string `json:"id"`
		Options struct {
			ExcludeByName map[string]bool   `json:"excludeByName"`
			IndexByName   map[string]int    `json:"indexByName"`
			RenameByName  map[string]string `json:"renameByName"`
		} `json:"options"`
	} `json:"transformations"`
}

// readDashboard reads the panels of a dashboard.
func readDashboard(path string) ([]panel, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var board struct {
		Panels []panel `json:"panels"`
	}
	if err := json.Unmarshal(text, &board); err != nil {
		return nil, err
	}
	return board.Panels, nil
}

// withVariables fills in the variables of a query as if all were chosen, for values at a
// distance. Grafana's rate interval is that and a scrape, or four scrapes where that is more.
func withVariables(expression string, step time.Duration) string {
	interval := max(step+scrapeInterval, 4*scrapeInterval).String()
	return strings.NewReplacer("$__rate_interval", interval, "$namespace", ".*", "$headscale", ".*").Replace(expression)
}

// legend is the name of a series by a format such as {{namespace}}/{{name}}.
func legend(format string, labels map[string]string) string {
	for label, value := range labels {
		format = strings.ReplaceAll(format, "{{"+label+"}}", value)
	}
	return format
}
