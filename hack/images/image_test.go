package main

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// buildProgram builds the smallest program and returns its path.
func buildProgram(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	command := exec.CommandContext(t.Context(), "go", "build", "-o", path, source)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return path
}

// readArchive returns the image that an archive holds under a name.
func readArchive(t *testing.T, path, reference string) v1.Image {
	t.Helper()
	tag, err := name.NewTag(reference)
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(path, &tag)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestAnImageRunsItsProgramAndHasNothingElse(t *testing.T) {
	out := t.TempDir()
	program := buildProgram(t, "manager")
	license := filepath.Join(t.TempDir(), "some-license")
	if err := os.WriteFile(license, []byte("Do what is good.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"--output", out, "--license", license, "--label", "a=b", "--link", "sh", "--created", "2026-11-23T00:00:00Z", "some/operator:v1=" + program}); err != nil {
		t.Fatal(err)
	}
	image := readArchive(t, filepath.Join(out, "some_operator_v1.tar"), "some/operator:v1")
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config; got.User != "65532:65532" || len(got.Entrypoint) != 1 || got.Entrypoint[0] != "/manager" || got.Labels["a"] != "b" {
		t.Errorf("the image's settings are %+v", got)
	}
	if config.Architecture != "amd64" || config.OS != "linux" || config.Created.Year() != 2026 {
		t.Errorf("the image is for %s/%s, made in %d", config.OS, config.Architecture, config.Created.Year())
	}
	var files []string
	archive := tar.NewReader(mutate.Extract(image))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Linkname != "" {
			header.Name += "->" + header.Linkname
		}
		files = append(files, header.Name)
	}
	if got, want := strings.Join(files, " "), "etc etc/group etc/passwd tmp manager sh->/manager LICENSE"; got != want {
		t.Errorf("the image holds %q, not %q", got, want)
	}
}

func TestTheSameProgramGivesTheSameImage(t *testing.T) {
	program := buildProgram(t, "manager")
	digest := func() string {
		out := t.TempDir()
		if err := run([]string{"--output", out, "some/operator:v1=" + program}); err != nil {
			t.Fatal(err)
		}
		hash, err := readArchive(t, filepath.Join(out, "some_operator_v1.tar"), "some/operator:v1").Digest()
		if err != nil {
			t.Fatal(err)
		}
		return hash.String()
	}
	if first, second := digest(), digest(); first != second {
		t.Errorf("first %s, then %s", first, second)
	}
}

func TestWhatCannotBeAnImageIsRefused(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := buildProgram(t, "manager")
	for argument, sentence := range map[string]string{
		"":                      "name at least one image",
		"some/operator:v1":      "write name:tag=path",
		"some/operator=" + text: "the tag is missing",
		"a/b:v1=" + text:        "is not a Linux program",
		"a/b:v1=/nowhere":       "no such file",
		"A/b:v1=" + program:     "repository can only contain",
	} {
		args := []string{"--output", t.TempDir()}
		if argument != "" {
			args = append(args, argument)
		}
		err := run(args)
		if err == nil || !strings.Contains(err.Error(), sentence) {
			t.Errorf("%q: got %v, want %q", argument, err, sentence)
		}
	}
}
