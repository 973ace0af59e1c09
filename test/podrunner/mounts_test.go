package podrunner

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("Paths below a mount path", func() {
	dirs := mounts{
		"/etc/headscale": "/t/config", "/var/lib/headscale": "/t/data", "/var/lib": "/t/lib", "/tmp": "/tmp/t/tmp", "/srv": "/t/srv/inner",
	}

	DescribeTable("are rewritten",
		func(text, expected string) { Expect(dirs.rewrite(text)).To(Equal(expected)) },
		Entry("in a flag", "--config=/etc/headscale/config.yaml", "--config=/t/config/config.yaml"),
		Entry("as a whole", "/etc/headscale", "/t/config"),
		Entry("with a slash at the end", "/var/lib/headscale/", "/t/data/"),
		Entry("by the longest mount path", "/var/lib/headscale/db:/var/lib/other", "/t/data/db:/t/lib/other"),
		Entry("in a URL of a file", "unix:///etc/headscale/s", "unix:///t/config/s"),
		Entry("in quotes", `path: "/etc/headscale/x", '/srv/y'`, `path: "/t/config/x", '/t/srv/inner/y'`),
		Entry("once only, though the new path lies below a mount path too", "/tmp/a", "/tmp/t/tmp/a"),
		Entry("not within another path", "/opt/etc/headscale", "/opt/etc/headscale"),
		Entry("not for a longer name", "/etc/headscale2 /etc/headscale.d /srv_x", "/etc/headscale2 /etc/headscale.d /srv_x"),
		Entry("not within a URL", "https://host/etc/headscale", "https://host/etc/headscale"),
		Entry("not elsewhere", "/usr/bin and nothing", "/usr/bin and nothing"),
		Entry("not in nothing", "", ""),
	)
})
