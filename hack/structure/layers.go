package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// layers says in which layer the packages of some directories are: 1 is the lowest.
type layers map[string]int

// layerRow is a row of the table of layers: its number, then its packages in backquotes.
var layerRow = regexp.MustCompile(`^\| (\d) \| ([^|]+) \|`)

// quoted is something in backquotes.
var quoted = regexp.MustCompile("`([^`]+)`")

// readLayers reads the table of layers from a page. It is nil where there is none, as in an older
// checkout.
func readLayers(page string) (layers, error) {
	text, err := os.ReadFile(page) //nolint:gosec // the checkout is the caller's choice
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the table of layers: %w", err)
	}
	var found layers
	for line := range strings.Lines(string(text)) {
		row := layerRow.FindStringSubmatch(line)
		if row == nil {
			continue
		}
		number, _ := strconv.Atoi(row[1]) // the pattern takes digits only
		for _, name := range quoted.FindAllStringSubmatch(row[2], -1) {
			if found == nil {
				found = layers{}
			}
			found[name[1]] = number
		}
	}
	return found, nil
}

// of is the layer of a package, or 0 where the table does not have it.
func (l layers) of(path string) int { return l[path] }

// describe is the layer of a package for people.
func (l layers) describe(path string) string {
	if layer := l.of(path); layer > 0 {
		return strconv.Itoa(layer)
	}
	return "-"
}

// setUp is the package that sets up the others of its layer.
const setUp = "internal/operator"

// violations are the imports that do not go down, and the differences between the table
// and the packages; none without a table.
func violations(packages []codePackage, layers layers) []error {
	if layers == nil {
		return nil
	}
	var errs []error
	exists := map[string]bool{}
	for _, p := range packages {
		exists[p.path] = true
		if p.isTestSupport() || p.isTool() {
			continue
		}
		from := layers.of(p.path)
		if from == 0 && p.lines > 0 {
			errs = append(errs, fmt.Errorf("docs/design.md has no layer for %s: add it to the table", p.path))
			continue
		}
		for _, imported := range p.imports {
			to := layers.of(imported)
			sets := p.path == setUp && to == from
			if to >= from && !sets {
				errs = append(errs, fmt.Errorf("%s (layer %d) imports %s (layer %d): an import goes down", p.path, from, imported, to))
			}
		}
	}
	for path := range layers {
		if !exists[path] {
			errs = append(errs, fmt.Errorf("docs/design.md has a layer for %s, which does not exist: remove it from the table", path))
		}
	}
	return errs
}
