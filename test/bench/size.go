package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// What the API Key Manager should weigh, in millions of bytes.
const (
	wantedBinary = 25.0
	wantedImage  = 27.0
)

// measureSizes weighs what make images left of the API Key Manager.
func measureSizes(_ context.Context, settings *settings) []row {
	binary := must(os.Stat(filepath.Join(settings.images, "apikey-manager"))).Size()
	image := must(os.Open(filepath.Join(settings.images, "headscale-operator_apikey-manager_latest.tar")))
	defer func() { _ = image.Close() }()
	return []row{
		atMost("apikey-manager, binary", "%.1f MB", float64(binary)/1e6, wantedBinary),
		atMost("apikey-manager, image, unpacked", "%.1f MB", float64(unpackedSize(image))/1e6, wantedImage),
	}
}

// unpackedSize is how many bytes the files in the layers of an image have.
func unpackedSize(image io.Reader) (total int64) {
	for entry, content := range filesOf(image) {
		if strings.HasSuffix(entry.Name, ".tar.gz") {
			for file := range filesOf(must(gzip.NewReader(content))) {
				total += file.Size
			}
		}
	}
	return total
}

// filesOf are the files of an archive.
func filesOf(archive io.Reader) iter.Seq2[*tar.Header, io.Reader] {
	return func(yield func(*tar.Header, io.Reader) bool) {
		files := tar.NewReader(archive)
		file, err := files.Next()
		for err == nil && yield(file, files) {
			file, err = files.Next()
		}
		if !errors.Is(err, io.EOF) {
			check(err)
		}
	}
}
