package serverbuild

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("The progress", func() {
	It("tells how far a build is, phase by phase", func() {
		p := &progress{log: GinkgoWriter, name: "toy", start: time.Now()}
		_, _ = fmt.Fprintln(p, "go: downloading example.test/a v1.0.0")
		_, _ = fmt.Fprintln(p, "go: downloading example.test/b v1.0.0")
		Expect(p.state()).To(Equal("downloading modules, 2 so far"))

		p.compiling(3)
		_, _ = fmt.Fprintln(p, "example.test/a")
		_, _ = fmt.Fprintln(p, "# example.test/b")
		_, _ = fmt.Fprintln(p, "a.go:3:2: undefined: x")
		Expect(p.state()).To(Equal("compiled 1 of 3 packages"))

		_, _ = fmt.Fprintln(p, "example.test/b")
		_, _ = fmt.Fprintln(p, "example.test/toy")
		Expect(p.state()).To(Equal("compiled 3 packages, linking"))
		Expect(p.complaints()).To(Equal("# example.test/b\na.go:3:2: undefined: x"))
	})
})
