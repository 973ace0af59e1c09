// Command structure prints how the module is built: the size of every package and of its
// functions, how much of test/ is support code and how much is tests, which packages import
// which, and how large the programs are. It exits with status 1 where an import goes up a
// layer of docs/design.md, where that table and the packages do not agree, or where there is too
// much test machinery. Of a checkout without that table it prints the imports without layers.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// programs are the binaries of a release, with the build tags that Makefile gives them.
var programs = []struct{ name, path, tags string }{
	{"manager", "./cmd", "grpcnotrace"},
	{"apikey-manager", "./cmd/apikey-manager", "grpcnotrace"},
	{"kubectl-headscale", "./cmd/kubectl-headscale", "grpcnotrace"},
}

// maxMachinery is how many lines of Go that are no tests may stand below test/. A newcomer reads
// them before a failing suite. It was 6000 for one kind; the measurements of three more, of a
// preflight and of a backup, native sidecars and the demo have 850: docs/decisions/2026-11-26-test-machinery.md.
const maxMachinery = 6850

func main() {
	directory := flag.String("C", ".", "the checkout to look at")
	build := flag.Bool("build", false, "build the programs, too, and print how long that takes and how large they are")
	tests := flag.String("tests", "", "print how long the packages took of which this `file` has the output of go test")
	flag.Parse()
	err := run(context.Background(), os.Stdout, *directory, *build)
	if *tests != "" {
		err = errors.Join(err, printTestTimes(os.Stdout, *tests))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "structure:", err)
		os.Exit(1)
	}
}

// run prints everything about one checkout. Its error names each import that goes up, and too
// much test machinery.
func run(ctx context.Context, out io.Writer, directory string, build bool) error {
	packages, err := readPackages(ctx, directory)
	if err != nil {
		return err
	}
	printPackages(out, packages)
	printTests(out, packages)
	layers, err := readLayers(filepath.Join(directory, "docs", "design.md"))
	if err != nil {
		return err
	}
	printImports(out, packages, layers)
	if build {
		if err := printPrograms(ctx, out, directory); err != nil {
			return err
		}
	}
	return errors.Join(append(violations(packages, layers), tooMuch(packages))...)
}

// printPackages prints a line for each package that has code besides its tests.
func printPackages(out io.Writer, packages []codePackage) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(table, "package\tlines\tfiles\tfunctions\tmedian\tp90\tlongest\ttest lines\t")
	var all codePackage
	for _, p := range packages {
		all.add(p)
		if p.lines > 0 {
			printPackage(table, p)
		}
	}
	all.path = "all"
	printPackage(table, all)
	_ = table.Flush()
}

func printPackage(table io.Writer, p codePackage) {
	slices.Sort(p.functions)
	_, _ = fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", p.path, p.lines, p.files, len(p.functions),
		quantile(p.functions, 0.5), quantile(p.functions, 0.9), quantile(p.functions, 1), p.testLines)
}

// quantile is the value below which a share of sorted values is; 0 where there are none.
func quantile(sorted []int, share float64) int {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

// printTests prints how many lines test the programs, and how many lines that takes besides.
func printTests(out io.Writer, packages []codePackage) {
	var product, support, tests int
	for _, p := range packages {
		tests += p.testLines
		if p.isTestSupport() {
			support += p.lines
		} else {
			product += p.lines
		}
	}
	_, _ = fmt.Fprintf(out, "\nproduct: %d lines; tests: %d lines; test support (test/ and internal/…/…test, no tests): %d lines\n",
		product, tests, support)
	_, _ = fmt.Fprintf(out, "test machinery below test/: %d lines, at most %d\n", machinery(packages), maxMachinery)
}

// machinery counts the lines below test/ that are no tests.
func machinery(packages []codePackage) int {
	lines := 0
	for _, p := range packages {
		if strings.HasPrefix(p.path, "test/") {
			lines += p.lines
		}
	}
	return lines
}

// tooMuch is the error of more test machinery than there may be.
func tooMuch(packages []codePackage) error {
	if lines := machinery(packages); lines > maxMachinery {
		return fmt.Errorf("below test/ are %d lines that are no tests, more than %d: remove what shows less than it costs", lines, maxMachinery)
	}
	return nil
}

// printImports prints which packages of the product import which, by layer.
func printImports(out io.Writer, packages []codePackage, layers layers) {
	header := "\nimports within the product, with the layers of docs/design.md:"
	if layers == nil {
		header = "\nimports within the product; docs/design.md has no table of layers (| layer | packages | …):"
	}
	_, _ = fmt.Fprintln(out, header)
	for _, p := range packages {
		if p.isTestSupport() || p.isTool() || len(p.imports) == 0 {
			continue
		}
		_, _ = fmt.Fprintf(out, "  %s %s\n", layers.describe(p.path), p.path)
		for _, imported := range p.imports {
			_, _ = fmt.Fprintf(out, "      → %s %s\n", layers.describe(imported), imported)
		}
	}
}

// printPrograms builds each program as a release does and prints its size.
func printPrograms(ctx context.Context, out io.Writer, directory string) error {
	target, err := os.MkdirTemp("", "structure-")
	if err != nil {
		return fmt.Errorf("making a directory for the programs: %w", err)
	}
	defer func() { _ = os.RemoveAll(target) }()
	_, _ = fmt.Fprintln(out, "\nprograms, built with what the build cache holds:")
	for _, program := range programs {
		begin := time.Now()
		binary := filepath.Join(target, program.name)
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", program.tags, "-o", binary, program.path) //nolint:gosec // the programs above
		command.Dir = directory
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", program.path, err, output)
		}
		info, err := os.Stat(binary)
		if err != nil {
			return fmt.Errorf("looking at %s: %w", program.name, err)
		}
		_, _ = fmt.Fprintf(out, "  %-18s %5.1f MB  built in %.1f s\n", program.name, float64(info.Size())/1e6, time.Since(begin).Seconds())
	}
	_, _ = fmt.Fprintln(out, "  memory: make bench measures it, of the operator with 100 Headscales and of an idle apikey-manager")
	return nil
}

// testTime is the line of a package that go test ran, not of one whose result it had cached.
var testTime = regexp.MustCompile(`(?m)^(?:ok|FAIL) *\t(\S+)\t([0-9.]+)s\b`)

// printTestTimes prints how long each package took, the longest first. They run at the same time.
func printTestTimes(out io.Writer, path string) error {
	text, err := os.ReadFile(path) //nolint:gosec // the file is the caller's choice
	if err != nil {
		return fmt.Errorf("reading the output of go test: %w", err)
	}
	times := map[string]float64{}
	for _, line := range testTime.FindAllStringSubmatch(string(text), -1) {
		times[line[1]], _ = strconv.ParseFloat(line[2], 64) // the pattern takes numbers only
	}
	_, _ = fmt.Fprintln(out, "\ntests, by package:")
	for _, name := range slices.SortedFunc(maps.Keys(times), func(a, b string) int { return cmp.Or(cmp.Compare(times[b], times[a]), cmp.Compare(a, b)) }) {
		_, _ = fmt.Fprintf(out, "  %7.1f s  %s\n", times[name], name)
	}
	return nil
}
