package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// What the API Key Manager should weigh, in millions of bytes.
const (
	wantedBinary = 25.0
	wantedImage  = 27.0
)

// sizes are those of a program and of its image, in bytes.
type sizes struct {
	program                      string
	binary, compressed, unpacked int64
}

// measureSizes weighs what make images left.
func measureSizes(_ context.Context, settings *settings) report {
	var all []sizes
	for _, program := range []string{"apikey-manager", "manager"} {
		s := sizes{program: program, binary: must(os.Stat(filepath.Join(settings.images, program))).Size()}
		for _, archive := range must(filepath.Glob(filepath.Join(settings.images, "*.tar"))) {
			image := must(os.ReadFile(archive))
			unpacked, mine, err := weighImage(bytes.NewReader(image), program)
			check(err)
			if mine {
				s.compressed, s.unpacked = int64(len(image)), unpacked
			}
		}
		if s.unpacked == 0 {
			check(fmt.Errorf("no image in %s has the program %s", settings.images, program))
		}
		all = append(all, s)
	}
	return describeSizes(all)
}

// weighImage returns how many bytes the files in the layers of an image have, and whether one
// of them is the program, in the image's root.
func weighImage(archive io.Reader, program string) (unpacked int64, mine bool, err error) {
	err = eachFile(archive, func(entry *tar.Header, layer io.Reader) error {
		if !strings.HasSuffix(entry.Name, ".tar.gz") {
			return nil
		}
		plain, err := gzip.NewReader(layer)
		if err != nil {
			return err
		}
		return eachFile(plain, func(file *tar.Header, _ io.Reader) error {
			unpacked += file.Size
			mine = mine || strings.TrimPrefix(file.Name, "/") == program
			return nil
		})
	})
	return unpacked, mine, err
}

// eachFile looks at every file of an archive.
func eachFile(archive io.Reader, look func(*tar.Header, io.Reader) error) error {
	for files := tar.NewReader(archive); ; {
		file, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := look(file, files); err != nil {
			return err
		}
	}
}

// describeSizes makes the tables of the sizes, that of the API Key Manager first.
func describeSizes(all []sizes) report {
	return report{[]string{table("program | binary | image, compressed | image, unpacked", all, func(s sizes) []string {
		return []string{s.program, megabytes(s.binary), megabytes(s.compressed), megabytes(s.unpacked)}
	})}, []target{
		atMost(all[0].program+", binary", float64(all[0].binary)/1e6, wantedBinary, "%.1f MB"),
		atMost(all[0].program+", image, unpacked", float64(all[0].unpacked)/1e6, wantedImage, "%.1f MB"),
	}}
}

// megabytes shows bytes in millions.
func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
