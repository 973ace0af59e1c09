package env_test

import (
	"net/http"
	"os"
	"os/exec"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

var _ = Describe("A Headscale", func() {
	root, err := serverbuild.FindRoot()
	if err != nil {
		panic(err)
	}
	versions, err := serverbuild.HeadscaleVersions(root)
	if err != nil {
		panic(err)
	}

	// newKey makes a key with Headscale's own command line.
	newKey := func(h *env.Headscale) string {
		GinkgoHelper()
		cmd := exec.Command(h.Binary, "apikeys", "create", "--expiration", "1h", "--config", h.ConfigPath())
		// Its timeout of five seconds is short for a busy machine.
		cmd.Env = append(os.Environ(), "HEADSCALE_CLI_ADDRESS=", "HEADSCALE_CLI_TIMEOUT=1m")
		output, err := cmd.Output()
		Expect(err).NotTo(HaveOccurred())
		lines := strings.Fields(string(output))
		return lines[len(lines)-1]
	}

	for _, version := range versions {
		It("of "+version+" keeps its keys over a restart, and not on another database", func(ctx SpecContext) {
			h, err := env.StartHeadscale(ctx, env.HeadscaleOptions{
				Binary: findServers(version).Headscale[version], Guard: newGuard(), Output: GinkgoWriter,
			})
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(h.Kill)
			key := newKey(h)
			Expect(env.KeyStatus(ctx, h.URL(), key)).To(Equal(http.StatusOK))
			Expect(env.KeyStatus(ctx, h.URL(), "hskey-api-000000000000-0")).To(Equal(http.StatusUnauthorized))

			By("restarting it")
			Expect(h.Stop()).To(Succeed())
			Expect(h.Start(ctx)).To(Succeed())
			Expect(env.KeyStatus(ctx, h.URL(), key)).To(Equal(http.StatusOK))

			By("starting it on an empty database")
			h.Kill()
			h.Database = "other.sqlite"
			Expect(h.Start(ctx)).To(Succeed())
			Expect(env.KeyStatus(ctx, h.URL(), key)).To(Equal(http.StatusUnauthorized))
		})
	}

	It("that cannot start says why", func(ctx SpecContext) {
		_, err := env.StartHeadscale(ctx, env.HeadscaleOptions{
			Binary: findServers(serverbuild.DefaultHeadscale).Headscale[serverbuild.DefaultHeadscale],
			Guard:  newGuard(),
			Config: map[string]any{"server_url": ""},
		})
		Expect(err).To(MatchError(And(ContainSubstring("it ended"), ContainSubstring("server_url"))))
	})
})
