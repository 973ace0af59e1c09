package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What was packed comes back with its content, modes and links.
func TestPackedAndUnpacked(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for name, mode := range map[string]os.FileMode{"db.sqlite": 0o600, "keys/noise.key": 0o640} {
		path := filepath.Join(from, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o750))
		must(t, os.WriteFile(path, []byte("what "+name+" holds"), mode))
	}
	must(t, os.Symlink("db.sqlite", filepath.Join(from, "link")))

	var archive bytes.Buffer
	t.Chdir(from)
	must(t, pack(&archive, []string{"."}))
	t.Chdir(to)
	must(t, unpack(&archive))

	for name, mode := range map[string]os.FileMode{"db.sqlite": 0o600, "keys/noise.key": 0o640} {
		content, err := os.ReadFile(filepath.Join(to, name))
		must(t, err)
		if string(content) != "what "+name+" holds" {
			t.Errorf("%s holds %q", name, content)
		}
		info, err := os.Stat(filepath.Join(to, name))
		must(t, err)
		if info.Mode() != mode {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
	}
	if target, err := os.Readlink(filepath.Join(to, "link")); err != nil || target != "db.sqlite" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
}

func TestNothingIsUnpackedOutsideTheDirectory(t *testing.T) {
	outer := t.TempDir()
	must(t, os.Mkdir(filepath.Join(outer, "inner"), 0o750))
	must(t, os.WriteFile(filepath.Join(outer, "file"), nil, 0o600))
	t.Chdir(filepath.Join(outer, "inner"))
	var archive bytes.Buffer
	must(t, pack(&archive, []string{"../file"}))
	if err := unpack(&archive); err == nil {
		t.Error("a path that leads out is taken")
	}
}

// A shell empties a directory as the page asks it to.
func TestShellRemoves(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(t, shell(t.Context(), []string{"-c", "rm -rf " + dir + "/*"}))
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 0 {
		t.Errorf("%d files are left", len(left))
	}
	if err := shell(t.Context(), []string{"-c", "rm " + dir}); err == nil {
		t.Error("rm without -rf is taken")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
