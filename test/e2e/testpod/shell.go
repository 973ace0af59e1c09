package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// shellCommands are what the pages run in a pod of busybox, for a cluster that cannot pull
// that image. They are called by these names, as links to this program, and know the very
// command lines of docs/operations.md.
var shellCommands = map[string]func(context.Context, []string) error{"sleep": sleep, "sh": removeAll, "tar": archive}

// sleep waits for some seconds, or for the end.
func sleep(ctx context.Context, args []string) error {
	length, err := time.ParseDuration(strings.Join(args, " ") + "s")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	return idle(ctx, nil)
}

// removeAll is sh -c 'rm -rf PATTERN...'.
func removeAll(_ context.Context, args []string) (err error) {
	patterns, known := strings.CutPrefix(strings.Join(args, " "), "-c rm -rf ")
	if !known || strings.ContainsAny(patterns, ";&|$") {
		return errors.New("this shell knows sh -c 'rm -rf PATTERN...' only")
	}
	for pattern := range strings.FieldsSeq(patterns) {
		paths, failed := filepath.Glob(pattern)
		err = errors.Join(err, failed)
		for _, path := range paths {
			// A * of a shell matches no name that begins with a dot.
			if name := filepath.Base(path); name[0] != '.' || name == filepath.Base(pattern) {
				err = errors.Join(err, os.RemoveAll(path))
			}
		}
	}
	return err
}

// archive is tar -C DIR -cf - . and tar -C DIR -xf -.
func archive(_ context.Context, args []string) error {
	if len(args) < 4 || args[0] != "-C" || args[3] != "-" {
		return errors.New("needs -C DIR -cf - . or -C DIR -xf -")
	}
	root, err := os.OpenRoot(args[1])
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	switch strings.Join(args[2:], " ") {
	case "-cf - .":
		return pack(os.Stdout, root)
	case "-xf -":
		return unpack(root, os.Stdin)
	default:
		return fmt.Errorf("cannot do %q", args)
	}
}

// pack writes the files of a directory with their modes.
func pack(to io.Writer, root *os.Root) error {
	archive := tar.NewWriter(to)
	return errors.Join(archive.AddFS(root.FS()), archive.Close())
}

// unpack writes the files of an archive into a directory, and none outside.
func unpack(root *os.Root, from io.Reader) error {
	for archive := tar.NewReader(from); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		mode := header.FileInfo().Mode().Perm()
		if header.Typeflag == tar.TypeDir {
			if err := root.MkdirAll(header.Name, mode); err != nil {
				return err
			}
			continue
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		if err := root.WriteFile(header.Name, content, mode); err != nil {
			return err
		}
	}
}
