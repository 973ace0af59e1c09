package podrunner

import (
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("Headscale's listen addresses", func() {
	move := func(config string, ports *portMap) map[string]string {
		GinkgoHelper()
		path := filepath.Join(GinkgoT().TempDir(), "config.yaml")
		Expect(os.WriteFile(path, []byte(config), 0o600)).To(Succeed())
		variables, err := moveListeners(path, ports)
		Expect(err).NotTo(HaveOccurred())
		return variables
	}

	It("are moved to free ones, the same for every pod", func() {
		ports := &portMap{}
		config := "listen_addr: 0.0.0.0:8080\nmetrics_listen_addr: \"\"\nderp:\n  server:\n    stun_listen_addr: \":3478\"\n"
		variables := move(config, ports)
		Expect(variables).To(HaveLen(2))
		Expect(variables["HEADSCALE_LISTEN_ADDR"]).To(HavePrefix("127."))
		Expect(variables["HEADSCALE_LISTEN_ADDR"]).To(Equal(ports.lookup(8080)))
		Expect(variables["HEADSCALE_DERP_SERVER_STUN_LISTEN_ADDR"]).To(Equal(ports.lookup(3478)))
		Expect(move(config, ports)).To(Equal(variables))
	})

	It("are none in the file of another program", func() {
		Expect(move("[section]\nkey = value\n", &portMap{})).To(BeEmpty())
		Expect(moveListeners("/does/not/exist", &portMap{})).To(BeEmpty())
	})

	It("leave other ports where they are", func() {
		Expect((&portMap{}).lookup(9)).To(Equal("127.0.0.1:9"))
	})
})

var _ = Describe("An address in an argument", func() {
	It("is moved to a free one, the same for every pod", func() {
		ports := &portMap{}
		moved, err := moveBindAddress("--metrics-bind-address=:9101", ports)
		Expect(err).NotTo(HaveOccurred())
		Expect(moved).To(Equal("--metrics-bind-address=" + ports.lookup(9101)))
		Expect(moved).To(HavePrefix("--metrics-bind-address=127."))
		Expect(moved).NotTo(HaveSuffix(":9101"))
		Expect(moveBindAddress("--metrics-bind-address=0.0.0.0:9101", ports)).To(Equal(moved))
	})

	DescribeTable("is left alone where there is none", func(arg string) {
		Expect(moveBindAddress(arg, &portMap{})).To(Equal(arg))
	},
		Entry("another flag", "--server=:80"),
		Entry("turned off", "--metrics-bind-address=0"),
		Entry("no value", "--metrics-bind-address"),
	)
})
