package serverbuild

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("The progress", func() {
	It("tells how far a build is, phase by phase", func() {
		p := &progress{log: GinkgoWriter, name: "toy", start: time.Now()}
		p.line("go: downloading example.test/a v1.0.0")
		p.line("go: downloading example.test/b v1.0.0")
		Expect(p.state()).To(Equal("downloading modules, 2 so far"))

		p.compiling(3)
		p.line("example.test/a")
		p.line("# example.test/b")
		p.line("a.go:3:2: undefined: x")
		Expect(p.state()).To(Equal("compiled 1 of 3 packages"))

		p.line("example.test/b")
		p.line("example.test/toy")
		Expect(p.state()).To(Equal("compiled 3 packages, linking"))
	})
})
