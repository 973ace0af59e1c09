package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"infrado.cloud/headscale-operator/test/figures"
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

// sizeTakes is about how long measureSizes takes.
func sizeTakes(*settings) time.Duration { return time.Second }

// measureSizes weighs what make images left.
func measureSizes(_ context.Context, l *lab) (report, error) {
	archives, err := filepath.Glob(filepath.Join(filepath.Dir(l.manager), "*.tar"))
	if err != nil {
		return report{}, err
	}
	var all []sizes
	for _, program := range []string{l.manager, l.operator} {
		s := sizes{program: filepath.Base(program)}
		info, err := os.Stat(program)
		if err != nil {
			return report{}, err
		}
		s.binary = info.Size()
		for _, archive := range archives {
			if err := s.addImage(archive); err != nil {
				return report{}, fmt.Errorf("%s: %w", archive, err)
			}
		}
		if s.unpacked == 0 {
			return report{}, fmt.Errorf("no image in %s has the program %s", filepath.Dir(program), s.program)
		}
		all = append(all, s)
	}
	return describeSizes(all), nil
}

// addImage weighs an image if it is that of the program.
func (s *sizes) addImage(archive string) error {
	info, err := os.Stat(archive)
	if err != nil {
		return err
	}
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	unpacked, mine, err := weighImage(file, s.program)
	if mine {
		s.compressed, s.unpacked = info.Size(), unpacked
	}
	return err
}

// weighImage returns how many bytes the files in the layers of an image have, and whether one
// of them is the program, in the image's root.
func weighImage(archive io.Reader, program string) (unpacked int64, mine bool, err error) {
	entries := tar.NewReader(archive)
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return unpacked, mine, nil
		}
		if err != nil {
			return 0, false, err
		}
		if !strings.HasSuffix(entry.Name, ".tar.gz") {
			continue
		}
		size, found, err := weighLayer(entries, program)
		if err != nil {
			return 0, false, err
		}
		unpacked, mine = unpacked+size, mine || found
	}
}

// weighLayer does so for one layer.
func weighLayer(layer io.Reader, program string) (unpacked int64, mine bool, err error) {
	plain, err := gzip.NewReader(layer)
	if err != nil {
		return 0, false, err
	}
	files := tar.NewReader(plain)
	for {
		file, err := files.Next()
		if errors.Is(err, io.EOF) {
			return unpacked, mine, nil
		}
		if err != nil {
			return 0, false, err
		}
		unpacked += file.Size
		mine = mine || strings.TrimPrefix(file.Name, "/") == program
	}
}

// describeSizes makes the tables of the sizes, that of the API Key Manager first.
func describeSizes(all []sizes) report {
	rows := make([][]string, len(all))
	for i, s := range all {
		rows[i] = []string{s.program, megabytes(s.binary), megabytes(s.compressed), megabytes(s.unpacked)}
	}
	const million = 1e6
	return report{[]string{figures.Table([]string{"program", "binary", "image, compressed", "image, unpacked"}, rows)}, []target{
		atMost(all[0].program+", binary", float64(all[0].binary)/million, wantedBinary, "%.1f MB"),
		atMost(all[0].program+", image, unpacked", float64(all[0].unpacked)/million, wantedImage, "%.1f MB"),
	}}
}

// megabytes shows bytes in millions.
func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
