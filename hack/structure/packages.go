package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// codePackage is what there is to say of one package of the module.
type codePackage struct {
	// path is relative to the module.
	path string
	// lines and files count what is neither a test nor generated.
	lines, files int
	// functions are the lengths of its functions in lines, without their first and last.
	functions []int
	// testLines counts its _test.go files.
	testLines int
	// imports are the packages of this module that it imports outside of its tests.
	imports []string
}

// isTestSupport reports whether the package exists for tests only.
func (p *codePackage) isTestSupport() bool {
	return strings.HasPrefix(p.path, "test/") || strings.HasPrefix(p.path, "internal/") && strings.HasSuffix(p.path, "test")
}

// isTool reports whether the package is a tool of developers.
func (p *codePackage) isTool() bool { return strings.HasPrefix(p.path, "hack/") }

// add counts the contents of another package, too.
func (p *codePackage) add(other codePackage) {
	p.lines += other.lines
	p.files += other.files
	p.testLines += other.testLines
	p.functions = append(p.functions, other.functions...)
}

// listed is the part of an entry of `go list -json` that is read here.
type listed struct {
	ImportPath, Dir                                    string
	Module                                             struct{ Path string }
	GoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
	Imports                                            []string
}

// readPackages lists the packages of the module in a directory, and measures them.
func readPackages(ctx context.Context, directory string) ([]codePackage, error) {
	command := exec.CommandContext(ctx, "go", "list", "-json=ImportPath,Dir,Module,GoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles,Imports", "./...")
	command.Dir = directory
	var complaints bytes.Buffer
	command.Stderr = &complaints
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the packages: %w\n%s", err, &complaints)
	}
	var packages []codePackage
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var entry listed
		err := decoder.Decode(&entry)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the list of packages: %w", err)
		}
		measured, err := measure(entry)
		if err != nil {
			return nil, err
		}
		packages = append(packages, measured)
	}
}

// measure reads the files of one package.
func measure(entry listed) (codePackage, error) {
	module := entry.Module.Path + "/"
	p := codePackage{path: strings.TrimPrefix(entry.ImportPath, module)}
	for _, name := range slices.Concat(entry.GoFiles, entry.IgnoredGoFiles, entry.TestGoFiles, entry.XTestGoFiles) {
		if err := p.measureFile(filepath.Join(entry.Dir, name)); err != nil {
			return p, err
		}
	}
	for _, imported := range entry.Imports {
		if path, inside := strings.CutPrefix(imported, module); inside {
			p.imports = append(p.imports, path)
		}
	}
	return p, nil
}

func (p *codePackage) measureFile(path string) error {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parsing a file: %w", err)
	}
	lines := files.File(file.FileStart).LineCount()
	switch {
	case ast.IsGenerated(file):
		return nil
	case strings.HasSuffix(path, "_test.go"):
		p.testLines += lines
		return nil
	}
	p.lines += lines
	p.files++
	for _, declaration := range file.Decls {
		if function, ok := declaration.(*ast.FuncDecl); ok && function.Body != nil {
			begin, end := files.Position(function.Pos()).Line, files.Position(function.End()).Line
			p.functions = append(p.functions, max(end-begin-1, 1))
		}
	}
	return nil
}
