package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Marks in a document between which the table is.
const (
	tableBegin = "<!-- begin: make bench -->\n"
	tableEnd   = "<!-- end: make bench -->\n"
)

// table shows measurements as a Markdown table.
func table(results []measurement) string {
	var text strings.Builder
	text.WriteString("| Headscales | all StatefulSets exist after | requests each | writes each | writes for a touch of each | writes at rest | requests at rest | memory (PSS) | more memory each | processor at rest |\n")
	text.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, m := range results {
		n := float64(m.size)
		fmt.Fprintf(&text, "| %d | %.1f s | %.1f | %.1f | %d | %d in %s | %d | %.1f MiB | %.0f KiB | %.2f %% |\n",
			m.size, m.made.Seconds(), float64(m.making.requests)/n, float64(m.making.writes)/n, m.touching.writes,
			m.resting.writes, m.rest.Round(time.Second), m.resting.requests,
			m.memory, (m.memory-m.memoryBefore)*1024/n, 100*m.processor.Seconds()/m.rest.Seconds())
	}
	return text.String()
}

// replaceTable puts a table in the place of the one in a document.
func replaceTable(path, text string) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(document), tableBegin)
	_, after, closed := strings.Cut(rest, tableEnd)
	if !found || !closed {
		return fmt.Errorf("%s has no place for the table: %q and %q", path, strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	return os.WriteFile(path, []byte(before+tableBegin+"\n"+text+"\n"+tableEnd+after), 0o600)
}
