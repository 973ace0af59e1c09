// Command plot draws the plots of docs/rotation-settings.md and fills in its table. What
// they show is what the API Key Manager decides: its own decisions are asked for.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"infrado.cloud/headscale-operator/test/serverbuild"
)

// tablePage is the page with the table, below the repository's root.
const tablePage = "docs/rotation-settings.md"

// Marks around the table.
const (
	tableBegin = "<!-- begin: make docs-plot -->\n"
	tableEnd   = "<!-- end: make docs-plot -->"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run() error {
	root, err := serverbuild.FindRoot()
	if err != nil {
		return err
	}
	files, err := draw(root)
	if err != nil {
		return err
	}
	for path, text := range files {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// draw makes the content of all files, by their paths below the repository's root.
func draw(root string) (map[string]string, error) {
	page, err := os.ReadFile(filepath.Join(root, tablePage))
	if err != nil {
		return nil, err
	}
	before, rest, begins := strings.Cut(string(page), tableBegin)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return nil, fmt.Errorf("%s has no place for the table: write %q and %q into it", tablePage, tableBegin, tableEnd)
	}
	return map[string]string{
		"docs/images/key-lifetimes.svg":    lifetimes(),
		"docs/images/revocation-delay.svg": delays(),
		tablePage:                          before + tableBegin + table() + tableEnd + after,
	}, nil
}
