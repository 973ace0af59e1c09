package process_test

import (
	"os"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("The usage of a process", func() {
	It("is what the kernel says", func(ctx SpecContext) {
		if _, err := os.Stat("/proc/self/smaps_rollup"); err != nil {
			Skip("the kernel does not say it")
		}
		p := start(shell("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo ready; sleep 60; true"))
		Eventually(p.Log().String).WithContext(ctx).Should(ContainSubstring("ready"))
		usage, err := p.Usage()
		Expect(err).NotTo(HaveOccurred())
		Expect(usage.Processor).To(BeNumerically(">", 0))
		Expect(usage.Proportional).To(BeNumerically(">", 0))
		Expect(usage.Resident).To(And(BeNumerically(">", 0.3), BeNumerically(">=", usage.Proportional)))
		Expect(usage.Peak).To(BeNumerically(">=", usage.Resident))
		Expect(usage.Files).To(BeNumerically(">=", 3))
		p.Kill()
		_, err = p.Usage()
		Expect(err).To(HaveOccurred())
	})
})
