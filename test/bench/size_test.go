package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"testing"

	. "github.com/onsi/gomega"
)

// file is one of an archive.
type file struct {
	name    string
	content []byte
}

func archiveOf(t *testing.T, files ...file) []byte {
	t.Helper()
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for _, f := range files {
		if err := archive.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.content)), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func zip(t *testing.T, content []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	if _, err := writer.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func TestAnImageWeighsWhatIsInItsLayers(t *testing.T) {
	g := NewWithT(t)
	image := archiveOf(t,
		file{"sha256:abc", []byte("a config, which weighs nothing")},
		file{"1.tar.gz", zip(t, archiveOf(t, file{"etc/passwd", make([]byte, 10)}))},
		file{"2.tar.gz", zip(t, archiveOf(t, file{"manager", make([]byte, 1000)}, file{"tmp/apikey-manager", make([]byte, 100)}))},
		file{"manifest.json", []byte("[]")},
	)
	unpacked, mine, err := weighImage(bytes.NewReader(image), "manager")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpacked).To(BeEquivalentTo(1110))
	g.Expect(mine).To(BeTrue())
	_, mine, err = weighImage(bytes.NewReader(image), "apikey-manager")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(mine).To(BeFalse(), "it is not in the image's root")
}

func TestWhatIsNoImageIsAnError(t *testing.T) {
	g := NewWithT(t)
	for _, content := range [][]byte{
		[]byte("nonsense"),
		archiveOf(t, file{"1.tar.gz", []byte("nonsense")}),
		archiveOf(t, file{"1.tar.gz", zip(t, []byte("nonsense"))}),
	} {
		_, _, err := weighImage(bytes.NewReader(content), "manager")
		g.Expect(err).To(HaveOccurred())
	}
}

func TestSizesAreComparedWithWhatTheyShouldBe(t *testing.T) {
	g := NewWithT(t)
	text := describeSizes([]sizes{{"apikey-manager", 25_000_000, 9_000_000, 27_100_000}, {"manager", 34_000_000, 13_000_000, 34_100_000}}).text()
	g.Expect(text).To(ContainSubstring("\n| manager | 34.0 MB | 13.0 MB | 34.1 MB |\n"))
	g.Expect(text).To(ContainSubstring("\n| apikey-manager, binary | ≤ 25.0 MB | 25.0 MB | yes |\n"))
	g.Expect(text).To(HaveSuffix("\n| apikey-manager, image, unpacked | ≤ 27.0 MB | 27.1 MB | no |"))
}
