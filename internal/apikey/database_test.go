package apikey

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// rowsFile was written by SQLite: 400 users of 800 that are left, in a tree of several pages, 3 nodes that
// are longer than a page, no pre-auth key, 14 other tables, and a view in the place of the API keys.
const rowsFile = "testdata/rows.sqlite"

var _ = Describe("The count of a database's rows", func() {
	It("counts the tables that there are", func() {
		report := filepath.Join(GinkgoT().TempDir(), "report")
		Expect(CountRows([]string{"--database=" + rowsFile, "--report=" + report})).To(Succeed())
		Expect(os.ReadFile(report)).To(MatchJSON(`{"rows": {"users": 400, "nodes": 3, "pre_auth_keys": 0}}`))
	})

	It("looks for an API key", func() {
		report := filepath.Join(GinkgoT().TempDir(), "report")
		Expect(CountRows([]string{"--database=" + rowsFile, "--report=" + report, "--api-key-prefix=abc"})).To(Succeed())
		Expect(os.ReadFile(report)).To(MatchJSON(`{"rows": {"users": 400, "nodes": 3, "pre_auth_keys": 0}, "hasAPIKey": false}`))
		opened, err := os.Open(rowsFile)
		Expect(err).NotTo(HaveOccurred())
		defer func() { _ = opened.Close() }()
		info, err := opened.Stat()
		Expect(err).NotTo(HaveOccurred())
		file, err := newTableFile(opened, info.Size())
		Expect(err).NotTo(HaveOccurred())
		Expect(file.contains(tableUsers, "u798")).To(BeTrue())
		Expect(file.contains(tableUsers, "u800")).To(BeFalse())
	})

	It("refuses what is no database, or is damaged", func() {
		good, err := os.ReadFile(rowsFile)
		Expect(err).NotTo(HaveOccurred())
		file := filepath.Join(GinkgoT().TempDir(), "db.sqlite")
		for _, content := range [][]byte{nil, []byte("no database"), good[:1000], good[:5000], make([]byte, 4096)} {
			Expect(os.WriteFile(file, content, 0o600)).To(Succeed())
			Expect(CountRows([]string{"--database=" + file, "--report=" + file + ".report"})).To(MatchError(ContainSubstring("counting the rows of the database")))
			Expect(file + ".report").NotTo(BeAnExistingFile())
		}
		Expect(os.WriteFile(file, good, 0o600)).To(Succeed())
		Expect(os.WriteFile(file+"-wal", []byte("more"), 0o600)).To(Succeed())
		Expect(CountRows([]string{"--database=" + file, "--report=" + file + ".report"})).To(MatchError(ContainSubstring("write-ahead log")))
		Expect(CountRows([]string{"--database=" + file})).To(MatchError(ContainSubstring("takes --database and --report")))
	})
})

// FuzzCountRows damages a database: counting ends, whatever the file says.
func FuzzCountRows(f *testing.F) {
	good, err := os.ReadFile(rowsFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(100), []byte{5, 0, 0, 255, 255})
	f.Add(uint32(16), []byte{2, 0})
	f.Add(uint32(20), []byte{255})
	f.Fuzz(func(_ *testing.T, at uint32, damage []byte) {
		content := bytes.Clone(good)
		copy(content[int(at)%len(content):], damage)
		file, err := newTableFile(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			return
		}
		for _, table := range []string{"users", "nodes"} {
			_, _, _ = file.count(table)
			_, _ = file.contains(table, "u798")
		}
	})
}

var _ = Describe("The check of a data volume", func() {
	var dir string
	var printed bytes.Buffer
	BeforeEach(func() {
		dir = GinkgoT().TempDir()
		printed.Reset()
	})
	check := func() error {
		return CheckVolume([]string{"--database=" + filepath.Join(dir, "db.sqlite")}, &printed)
	}
	write := func(name string, size int) {
		Expect(os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte{1}, size), 0o600)).To(Succeed())
	}
	left := func() (names []string) {
		entries, err := os.ReadDir(dir)
		Expect(err).NotTo(HaveOccurred())
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		return names
	}

	It("removes files without content in the place of the database", func() {
		Expect(check()).To(Succeed(), "an empty volume")
		write("db.sqlite", 0)
		Expect(check()).To(Succeed())
		Expect(left()).To(BeEmpty())
		Expect(printed.String()).To(Equal("Removed db.sqlite, which has no content\n"))
		write("db.sqlite", 0)
		write("db.sqlite-shm", 0)
		write("db.sqlite-wal", 32)
		write("db.sqlite-journal", 512)
		write("other", 0)
		Expect(check()).To(Succeed())
		Expect(left()).To(ConsistOf("db.sqlite-shm", "other"))
	})

	It("touches nothing that has content", func() {
		write("db.sqlite", 1)
		write("db.sqlite-wal", 0)
		Expect(check()).To(Succeed())
		Expect(left()).To(ConsistOf("db.sqlite", "db.sqlite-wal"))

		for _, log := range []string{"db.sqlite-wal", "db.sqlite-journal"} {
			dir = GinkgoT().TempDir()
			write(log, 4096)
			for range 2 {
				Expect(check()).To(MatchError(And(ContainSubstring(log+" has 4096 bytes of a database that was"), ContainSubstring("Nothing is touched"))))
				Expect(left()).To(ContainElement(log))
				write("db.sqlite", 0)
			}
			Expect(left()).To(ConsistOf("db.sqlite", log))
		}
	})

	It("takes a directory that is not there for an empty volume, and wants a path", func() {
		dir = filepath.Join(dir, "none")
		Expect(check()).To(Succeed())
		Expect(CheckVolume(nil, &printed)).To(MatchError(ContainSubstring("takes --database")))
		Expect(os.MkdirAll(filepath.Join(dir, "db.sqlite"), 0o700)).To(Succeed())
		Expect(check()).To(Succeed(), "Headscale says what is wrong with it")
		Expect(filepath.Join(dir, "db.sqlite")).To(BeADirectory())
	})
})
