package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

// What was packed comes back with its content and modes.
func TestPackedAndUnpacked(t *testing.T) {
	g := NewWithT(t)
	from, to := t.TempDir(), t.TempDir()
	files := map[string]os.FileMode{"db.sqlite": 0o600, "keys/noise.key": 0o640}
	for name, mode := range files {
		path := filepath.Join(from, name)
		g.Expect(os.MkdirAll(filepath.Dir(path), 0o750)).To(Succeed())
		g.Expect(os.WriteFile(path, []byte("what "+name+" holds"), mode)).To(Succeed())
	}
	var archive bytes.Buffer
	g.Expect(pack(&archive, openRoot(t, from))).To(Succeed())
	g.Expect(unpack(openRoot(t, to), &archive)).To(Succeed())
	for name, mode := range files {
		g.Expect(os.ReadFile(filepath.Join(to, name))).To(BeEquivalentTo("what " + name + " holds"))
		info, err := os.Stat(filepath.Join(to, name))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(info.Mode()).To(Equal(mode))
	}
}

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestTheShellEmptiesADirectoryAndNothingElse(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	for _, name := range []string{"file", ".hidden"} {
		g.Expect(os.WriteFile(filepath.Join(dir, name), nil, 0o600)).To(Succeed())
	}
	g.Expect(removeAll(t.Context(), []string{"-c", "rm -rf " + dir + "/*"})).To(Succeed())
	g.Expect(os.ReadDir(dir)).To(ConsistOf(HaveField("Name()", ".hidden")))
	g.Expect(removeAll(t.Context(), []string{"-c", "rm -rf " + dir + "/* " + dir + "/.hidden"})).To(Succeed())
	g.Expect(os.ReadDir(dir)).To(BeEmpty())
	g.Expect(removeAll(t.Context(), []string{"-c", "rm " + dir})).NotTo(Succeed())
	g.Expect(removeAll(t.Context(), []string{"-c", "rm -rf " + dir + " ; ls"})).NotTo(Succeed())
	g.Expect(dir).To(BeADirectory())
}
