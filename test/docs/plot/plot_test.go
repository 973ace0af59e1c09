package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/serverbuild"
)

func TestCommittedFilesAreCurrent(t *testing.T) {
	g := NewWithT(t)
	root, err := serverbuild.FindRoot()
	g.Expect(err).NotTo(HaveOccurred())
	files, err := draw(root)
	g.Expect(err).NotTo(HaveOccurred())
	for path, text := range files {
		committed, err := os.ReadFile(filepath.Join(root, path))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(committed)).To(Equal(text), "%s is not current: run make docs-plot and commit it", path)
	}
}

func TestLivesOfKeys(t *testing.T) {
	for name, test := range map[string]struct {
		expiration, buffer, delay float64
		keys                      int
		inUse, good               time.Duration
	}{
		"default":      {2160, 1920, 0, 10, 10 * day, 10 * day},
		"samples":      {2160, 240, 0, 2, 80 * day, 80 * day},
		"with a delay": {720, 240, 48, 5, 20 * day, 22 * day},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			keys := livesOf(settingsOf(test.expiration, test.buffer, test.delay), 100*day)
			g.Expect(keys).To(HaveLen(test.keys))
			// The mark in the expiration is less than a second.
			for i := range keys[:len(keys)-1] {
				g.Expect(keys[i].replaced - keys[i].made).To(BeNumerically("~", test.inUse, time.Second))
				g.Expect(keys[i+1].made).To(Equal(keys[i].replaced), "there is always one in the Secret")
			}
			g.Expect(keys[0].refused - keys[0].made).To(BeNumerically("~", test.good, time.Second))
		})
	}
}
