package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

// archiveOf is an archive with one file.
func archiveOf(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	g := NewWithT(t)
	g.Expect(archive.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o600})).To(Succeed())
	g.Expect(archive.Write(content)).To(Equal(len(content)))
	// Without the end of the archive, others can follow.
	g.Expect(archive.Flush()).To(Succeed())
	return buffer.Bytes()
}

// zip compresses something.
func zip(t *testing.T, content []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	NewWithT(t).Expect(writer.Write(content)).To(Equal(len(content)))
	NewWithT(t).Expect(writer.Close()).To(Succeed())
	return buffer.Bytes()
}

// imagesOf is a directory as make images leaves it, with a program, and an image of a file.
func imagesOf(t *testing.T, program, file []byte) string {
	t.Helper()
	dir := t.TempDir()
	image := archiveOf(t, "1.tar.gz", zip(t, archiveOf(t, "apikey-manager", file)))
	NewWithT(t).Expect(os.WriteFile(filepath.Join(dir, "apikey-manager"), program, 0o600)).To(Succeed())
	NewWithT(t).Expect(os.WriteFile(filepath.Join(dir, "headscale-operator_apikey-manager_latest.tar"), image, 0o600)).To(Succeed())
	return dir
}

func TestAnImageWeighsWhatIsInItsLayers(t *testing.T) {
	var image []byte
	image = append(image, archiveOf(t, "sha256:abc", []byte("a config, which weighs nothing"))...)
	image = append(image, archiveOf(t, "1.tar.gz", zip(t, archiveOf(t, "etc/passwd", make([]byte, 10))))...)
	layer := append(archiveOf(t, "manager", make([]byte, 1000)), archiveOf(t, "LICENSE", make([]byte, 100))...)
	image = append(image, archiveOf(t, "2.tar.gz", zip(t, layer))...)
	NewWithT(t).Expect(unpackedSize(bytes.NewReader(image))).To(BeEquivalentTo(1110))
}

func TestWhatIsNoImageIsAnError(t *testing.T) {
	for _, content := range [][]byte{
		[]byte("nonsense"),
		archiveOf(t, "1.tar.gz", []byte("nonsense")),
		archiveOf(t, "1.tar.gz", zip(t, []byte("nonsense"))),
	} {
		NewWithT(t).Expect(attempt(func() { unpackedSize(bytes.NewReader(content)) })).NotTo(Succeed())
	}
}
