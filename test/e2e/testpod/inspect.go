package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// findings are what is to be seen from inside a container.
type findings struct {
	Writable []string `json:"writable"` // directories in which a file could be made
	Programs []string `json:"programs"` // files that can be executed
	Keys     []string `json:"keys"`     // files with an API key in them
	Tokens   []string `json:"tokens"`   // files with a ServiceAccount's token in them
	Unread   []string `json:"unread"`   // files that could not be read
	Read     int      `json:"read"`     // files that were read
}

// maxFile is how much of a file is looked at: more than a new database has.
const maxFile = 64 << 20

var (
	// keyPattern matches an API key in full, as Headscale v0.28 and newer make them.
	keyPattern = regexp.MustCompile(`hskey-api-[0-9A-Za-z_-]{12}-[0-9A-Za-z_-]{64}`)
	// tokenPattern matches a signed token.
	tokenPattern = regexp.MustCompile(`eyJ[0-9A-Za-z_-]{20,}\.eyJ[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{20,}`)
)

// inspect looks at a process, such as /proc/1, and walks through what is its file system.
func inspect(_ context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("inspect needs the directory of a process, such as /proc/1")
	}
	var found findings
	for _, file := range []string{"environ", "cmdline"} {
		found.note("/proc/self/"+file, found.read(filepath.Join(args[0], file), "/proc/self/"+file))
	}
	// With the slash at the end the link is followed.
	root := filepath.Join(args[0], "root") + "/"
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		inside := "/" + strings.TrimPrefix(path, root)
		switch {
		case inside == "/proc" || inside == "/sys" || inside == "/dev":
			return filepath.SkipDir
		case err != nil:
			// The walk goes on beside what may not be seen.
			found.Unread = append(found.Unread, inside)
		case entry.IsDir():
			found.tryWriting(path, inside)
		default:
			found.note(inside, found.look(path, inside))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

// tryWriting makes a file in a directory and removes it.
func (f *findings) tryWriting(path, inside string) {
	file, err := os.CreateTemp(path, ".inspect-")
	if err != nil {
		return
	}
	_ = file.Close()
	_ = os.Remove(file.Name())
	f.Writable = append(f.Writable, inside)
}

// note keeps the name of what could not be read, unless it was removed since, or is a link
// to nothing.
func (f *findings) note(inside string, err error) {
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		f.Unread = append(f.Unread, inside)
	}
}

// look reads a file, if it is one, through the links that volumes are made of.
func (f *findings) look(path, inside string) error {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	if info.Mode()&0o111 != 0 && !strings.Contains(inside, "/..") {
		f.Programs = append(f.Programs, inside)
	}
	return f.read(path, inside)
}

// read looks for secrets in a file.
func (f *findings) read(path, inside string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return err
	}
	f.Read++
	if keyPattern.Match(content) {
		f.Keys = append(f.Keys, inside)
	}
	if tokenPattern.Match(content) {
		f.Tokens = append(f.Tokens, inside)
	}
	return nil
}
