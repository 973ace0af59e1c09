package serverbuild

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
)

const toySource = "package main\n\nfunc main() { println(version) }\n\nvar version = \"unknown\"\n"

func writeFile(dir, name, content string) {
	GinkgoHelper()
	Expect(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)).To(Succeed())
}

var _ = Describe("The cache", func() {
	var (
		log *gbytes.Buffer
		c   cache
	)

	BeforeEach(func() {
		log = gbytes.NewBuffer()
		c = cache{dir: GinkgoT().TempDir(), log: log, indexURL: "http://127.0.0.1:1/"}
	})

	It("builds what is missing, under its own name and with its version, and then is quiet", func(ctx SpecContext) {
		s := newToySet("toy-v1", toySource)
		s.linkVars = []string{"main.version=v1.2.3"}

		dir, err := c.ensure(ctx, s)
		Expect(err).NotTo(HaveOccurred())
		output, err := exec.CommandContext(ctx, filepath.Join(dir, "renamed")).CombinedOutput()
		Expect(err).NotTo(HaveOccurred())
		Expect(string(output)).To(Equal("v1.2.3\n"))
		Expect(log).To(gbytes.Say("toy-v1: not in the cache yet"))
		Expect(log).To(gbytes.Say("toy-v1: built"))

		before := len(log.Contents())
		again, err := c.ensure(ctx, s)
		Expect(err).NotTo(HaveOccurred())
		Expect(again).To(Equal(dir))
		Expect(log.Contents()).To(HaveLen(before))
	})

	It("never takes a program that was built from other pins or with other flags", func() {
		s := newToySet("toy-v1", toySource)
		first, err := s.entry()
		Expect(err).NotTo(HaveOccurred())

		s.linkVars = []string{"main.version=v2"}
		flags, err := s.entry()
		Expect(err).NotTo(HaveOccurred())
		Expect(flags).NotTo(Equal(first))

		s.linkVars = nil
		writeFile(s.dir, "go.sum", "example.test/other v1.0.0 h1:abc=\n")
		sums, err := s.entry()
		Expect(err).NotTo(HaveOccurred())
		Expect(sums).NotTo(Equal(first))
	})

	It("builds once when several ask at the same time", func(ctx SpecContext) {
		s := newToySet("toy-v1", toySource)
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				defer GinkgoRecover()
				_, err := c.ensure(ctx, s)
				Expect(err).NotTo(HaveOccurred())
			})
		}
		wait.Wait()
		Expect(log).To(gbytes.Say("toy-v1: built"))
		Expect(log).NotTo(gbytes.Say("toy-v1: built"))
	})

	It("stops waiting for another one's build when it is told to", func(ctx SpecContext) {
		s := newToySet("toy-v1", toySource)
		dir, err := c.path(s)
		Expect(err).NotTo(HaveOccurred())
		unlock, err := c.lock(ctx, s, dir)
		Expect(err).NotTo(HaveOccurred())
		defer unlock()

		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, err = c.ensure(short, s)
		Expect(err).To(MatchError(context.DeadlineExceeded))
		Expect(log).To(gbytes.Say("another process is building it"))
	})

	It("shows what the compiler said, and leaves no entry and no leftovers", func(ctx SpecContext) {
		s := newToySet("toy-v1", "package main\n\nfunc main() { undefinedName() }\n")
		dir, err := c.path(s)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.Mkdir(dir+".unfinished", 0o700)).To(Succeed())
		writeFile(dir+".unfinished", "renamed", "of a build that was killed")

		_, err = c.ensure(ctx, s)
		Expect(err).To(MatchError(And(HavePrefix("toy-v1: "), ContainSubstring("undefined: undefinedName"))))
		left, err := filepath.Glob(dir + "*")
		Expect(err).NotTo(HaveOccurred())
		Expect(left).To(ConsistOf(dir + ".lock"))
	})
})
