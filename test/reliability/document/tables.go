package main

import (
	"fmt"

	"infrado.cloud/headscale-operator/test/figures"
	"infrado.cloud/headscale-operator/test/reliability/observation"
)

// column is one column of a table.
type column struct {
	title string
	value func(*row) string
}

var (
	failureColumn   = column{"failure", (*row).failure}
	headscaleColumn = column{"Headscale", (*row).headscale}
	timesColumn     = column{"times", func(r *row) string { return fmt.Sprint(r.Times) }}
	noteColumn      = column{"seen", (*row).note}
)

// usualColumns are those of the tables about failures that are healed.
var usualColumns = []column{
	failureColumn,
	{"produced by", func(r *row) string { return r.Produced }},
	headscaleColumn,
	timesColumn,
	{"keys made, of which wanted", (*row).minted},
	{"keys left", func(r *row) string { return fmt.Sprint(r.Left) }},
	{"time to heal: median / longest", (*row).heal},
	{"refusals of calls (longest streak)", (*row).consumer},
	noteColumn,
}

// otherColumns are those of the tables about something else.
var otherColumns = map[string][]column{
	"stop": {failureColumn, headscaleColumn, timesColumn, {"time to end: median / longest", (*row).heal}},
	"says": {failureColumn, headscaleColumn, {"lines logged", (*row).note}},
}

// latencySection is the name of the table of the measurements.
const latencySection = "latency"

// tables makes the table of each section.
func tables(observations []observation.Observation, latencies []observation.Latency) map[string]string {
	sections := map[string][]*row{}
	for _, r := range rows(observations) {
		sections[r.Section] = append(sections[r.Section], r)
	}
	texts := map[string]string{latencySection: latencyTable(latencies)}
	for section, content := range sections {
		columns, special := otherColumns[section]
		if !special {
			columns = usualColumns
		}
		texts[section] = table(columns, content)
	}
	return texts
}

func table(columns []column, content []*row) string {
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	lines := make([][]string, len(content))
	for i, r := range content {
		for _, c := range columns {
			lines[i] = append(lines[i], c.value(r))
		}
	}
	return figures.Table(titles, lines)
}

func latencyTable(latencies []observation.Latency) string {
	lines := make([][]string, len(latencies))
	for i, l := range latencies {
		lines[i] = []string{
			l.Headscale, l.Latency, fmt.Sprint(len(l.Milliseconds)),
			fmt.Sprintf("%.0f ms", figures.Median(l.Milliseconds)), fmt.Sprintf("%.0f ms", figures.Percentile90(l.Milliseconds)),
		}
	}
	return figures.Table([]string{"Headscale", "measured", "starts", "median", "90 %"}, lines)
}

// fillIn replaces what is between the marks of each table. A table without marks, and
// marks without a table, are errors: the document would not be whole.
func fillIn(document string, texts map[string]string) (string, error) {
	for section, text := range texts {
		var err error
		if document, err = figures.FillIn(document, section, text); err != nil {
			return "", err
		}
	}
	unfilled := figures.Unfilled(document, func(name string) bool {
		_, made := texts[name]
		return made
	})
	if unfilled != "" {
		return "", fmt.Errorf("nothing was observed for the table %q: run the whole suite", unfilled)
	}
	return document, nil
}
