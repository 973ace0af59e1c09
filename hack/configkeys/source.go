package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// viper is the package by which Headscale reads its config.
const viper = "viper"

var (
	// reader is a function of viper that reads the value of a key.
	reader = regexp.MustCompile(`^(Get\w*|IsSet|UnmarshalKey)$`)
	// mapReader is one for a map, whose keys are the user's own.
	mapReader = regexp.MustCompile(`^GetStringMap`)
)

// readKeys returns the keys that a release reads from its config, in lower case as viper
// compares them, and whether each is a free-form map. Keys that the release only knows so as
// to refuse them, or to say that they are gone, are not among them: it names these through
// parameters of its own functions, and never reads their values.
func readKeys(source string) (map[string]bool, error) {
	files, err := parseAll(source)
	if err != nil {
		return nil, err
	}
	helpers := map[string]bool{}
	for _, file := range files {
		findHelpers(file, helpers)
	}
	keys := map[string]bool{}
	for _, file := range files {
		ast.Inspect(file, func(node ast.Node) bool {
			if call, ok := node.(*ast.CallExpr); ok {
				if key, freeForm, ok := readBy(call, helpers); ok {
					keys[strings.ToLower(key)] = freeForm || keys[strings.ToLower(key)]
				}
			}
			return true
		})
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("no key is read by viper in %s", source)
	}
	return keys, nil
}

// parseAll parses Headscale's own code: the server and the command line.
func parseAll(source string) ([]*ast.File, error) {
	var files []*ast.File
	for _, part := range []string{"hscontrol", "cmd"} {
		err := filepath.WalkDir(filepath.Join(source, part), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			files = append(files, file)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("reading the source: %w", err)
		}
	}
	return files, nil
}

// findHelpers collects the functions whose first parameter is a key of which they read the
// value, such as one for a file mode.
func findHelpers(file *ast.File, helpers map[string]bool) {
	for _, declaration := range file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || function.Recv != nil || function.Body == nil || len(function.Type.Params.List) == 0 || len(function.Type.Params.List[0].Names) == 0 {
			continue
		}
		parameter := function.Type.Params.List[0].Names[0].Name
		ast.Inspect(function.Body, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 || !strings.HasPrefix(viperFunction(call), "Get") {
				return true
			}
			if argument, ok := call.Args[0].(*ast.Ident); ok && argument.Name == parameter {
				helpers[function.Name.Name] = true
			}
			return true
		})
	}
}

// readBy is the key that a call reads, and whether it is a map.
func readBy(call *ast.CallExpr, helpers map[string]bool) (key string, freeForm, ok bool) {
	if len(call.Args) == 0 {
		return "", false, false
	}
	literal, isLiteral := call.Args[0].(*ast.BasicLit)
	name := viperFunction(call)
	if !isLiteral || literal.Kind != token.STRING || !reader.MatchString(name) && !helpers[calledName(call)] {
		return "", false, false
	}
	key, err := strconv.Unquote(literal.Value)
	return key, mapReader.MatchString(name), err == nil
}

// viperFunction is the function of viper that is called, or "".
func viperFunction(call *ast.CallExpr) string {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if of, ok := selector.X.(*ast.Ident); !ok || of.Name != viper {
		return ""
	}
	return selector.Sel.Name
}

// calledName is the name of the function that is called, without its package, or "".
func calledName(call *ast.CallExpr) string {
	switch function := call.Fun.(type) {
	case *ast.Ident:
		return function.Name
	case *ast.SelectorExpr:
		return function.Sel.Name
	default:
		return ""
	}
}
