package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// nonroot is the user of the distroless images of that name.
const nonroot = 65532

// imageOptions are what an image has beside its program.
type imageOptions struct {
	platform *v1.Platform
	created  time.Time
	labels   map[string]string
	// links are other names of the program, in the same directory.
	links []string
	// license is the text of /LICENSE; without one there is no such file.
	license []byte
}

// newImage makes the image of a program. Its error says so when the program needs
// shared libraries, which the image would not have.
func newImage(program string, options imageOptions) (v1.Image, error) {
	content, err := os.ReadFile(program) //nolint:gosec // the one who calls this program chooses
	if err != nil {
		return nil, err
	}
	if err := checkStatic(content); err != nil {
		return nil, fmt.Errorf("%s %w", program, err)
	}
	entrypoint := "/" + filepath.Base(program)
	files, err := filesOf(entrypoint, content, options)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = options.platform.OS, options.platform.Architecture, options.platform.Variant
	config.Created = v1.Time{Time: options.created}
	config.Config = v1.Config{
		User: fmt.Sprintf("%d:%d", nonroot, nonroot), Entrypoint: []string{entrypoint},
		Env: []string{"PATH=/"}, WorkingDir: "/", Labels: options.labels,
	}
	return mutate.ConfigFile(image, config)
}

// checkStatic refuses a program that only a dynamic linker could start.
func checkStatic(content []byte) error {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("is not a Linux program: %w", err)
	}
	for _, header := range file.Progs {
		if header.Type == elf.PT_INTERP {
			return fmt.Errorf("needs shared libraries: build it with CGO_ENABLED=0")
		}
	}
	return nil
}

// file is a file of an image, a directory where the path ends with a slash, or a link.
type file struct {
	path    string
	mode    int64
	content []byte
	link    string
}

// filesOf is the image's file system, as a tar archive without dates.
func filesOf(entrypoint string, content []byte, options imageOptions) ([]byte, error) {
	passwd := fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:%d:%d:nonroot:/:/sbin/nologin\n", nonroot, nonroot)
	group := fmt.Sprintf("root:x:0:\nnonroot:x:%d:\n", nonroot)
	entries := []file{
		{path: "/etc/", mode: 0o755},
		{path: "/etc/group", mode: 0o644, content: []byte(group)},
		{path: "/etc/passwd", mode: 0o644, content: []byte(passwd)},
		{path: "/tmp/", mode: 0o1777},
		{path: entrypoint, mode: 0o755, content: content},
	}
	for _, name := range options.links {
		entries = append(entries, file{path: "/" + name, mode: 0o777, link: entrypoint})
	}
	if options.license != nil {
		entries = append(entries, file{path: "/LICENSE", mode: 0o644, content: options.license})
	}
	return archiveOf(entries)
}

// archiveOf is a tar archive of files, without dates.
func archiveOf(entries []file) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for _, entry := range entries {
		header := &tar.Header{Name: strings.TrimPrefix(entry.path, "/"), Mode: entry.mode, Size: int64(len(entry.content)), Typeflag: tar.TypeReg}
		switch {
		case entry.link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, entry.link
		case strings.HasSuffix(entry.path, "/"):
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(entry.content); err != nil {
			return nil, err
		}
	}
	err := archive.Close()
	return buffer.Bytes(), err
}
