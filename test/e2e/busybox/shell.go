package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// shell runs a command line: sh -c COMMANDS.
func shell(ctx context.Context, args []string) error {
	if len(args) != 2 || args[0] != "-c" {
		return fmt.Errorf("needs -c and one argument with commands")
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(args[1]), "")
	if err != nil {
		return err
	}
	runner, err := interp.New(interp.StdIO(os.Stdin, os.Stdout, os.Stderr), interp.ExecHandlers(withRemove))
	if err != nil {
		return err
	}
	return runner.Run(ctx, file)
}

// withRemove adds rm -rf to the commands of a shell.
func withRemove(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		if args[0] != "rm" {
			return next(ctx, args)
		}
		if len(args) < 3 || args[1] != "-rf" || slices.ContainsFunc(args[2:], func(path string) bool { return strings.HasPrefix(path, "-") }) {
			_, _ = fmt.Fprintln(os.Stderr, "rm: needs -rf and names of files")
			return interp.ExitStatus(1)
		}
		for _, path := range args[2:] {
			if err := os.RemoveAll(path); err != nil {
				_, _ = fmt.Fprintln(os.Stderr, "rm:", err)
				return interp.ExitStatus(1)
			}
		}
		return nil
	}
}
