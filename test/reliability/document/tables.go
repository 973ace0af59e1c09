package main

import (
	"fmt"
	"slices"
	"strings"

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
	var titles []string
	for _, c := range columns {
		titles = append(titles, c.title)
	}
	lines := []string{line(titles), line(slices.Repeat([]string{"---"}, len(columns)))}
	for _, r := range content {
		var cells []string
		for _, c := range columns {
			cells = append(cells, c.value(r))
		}
		lines = append(lines, line(cells))
	}
	return strings.Join(lines, "\n")
}

func latencyTable(latencies []observation.Latency) string {
	lines := []string{
		line([]string{"Headscale", "measured", "starts", "median", "90 %"}),
		line(slices.Repeat([]string{"---"}, 5)),
	}
	for _, l := range latencies {
		lines = append(lines, line([]string{
			l.Headscale, l.Latency, fmt.Sprint(len(l.Milliseconds)),
			fmt.Sprintf("%.0f ms", median(l.Milliseconds)), fmt.Sprintf("%.0f ms", percentile90(l.Milliseconds)),
		}))
	}
	return strings.Join(lines, "\n")
}

func line(cells []string) string {
	escaped := make([]string, len(cells))
	for i, cell := range cells {
		escaped[i] = strings.ReplaceAll(cell, "|", `\|`)
	}
	return "| " + strings.Join(escaped, " | ") + " |"
}

// fillIn replaces what is between the marks of each table. A table without marks, and
// marks without a table, are errors: the document would not be whole.
func fillIn(document string, texts map[string]string) (string, error) {
	for section, text := range texts {
		begin, end := fmt.Sprintf("<!-- table: %s -->\n", section), "<!-- end -->"
		before, rest, found := strings.Cut(document, begin)
		_, after, closed := strings.Cut(rest, end)
		if !found || !closed {
			return "", fmt.Errorf("the document has no place for the table %q: write %q and %q into it", section, begin, end)
		}
		document = before + begin + text + "\n" + end + after
	}
	for part := range strings.SplitSeq(document, "<!-- table: ") {
		name, _, marked := strings.Cut(part, " -->")
		if _, made := texts[name]; marked && !made && !strings.Contains(name, "\n") {
			return "", fmt.Errorf("nothing was observed for the table %q: run the whole suite", name)
		}
	}
	return document, nil
}
