package preauthkeys_test

import (
	"context"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
	"infrado.cloud/headscale-operator/test/env"
)

// What docs/backup.md says of Headscale's private keys.
var _ = Describe("A node of a Headscale that has lost its Noise key", func() {
	eachRelease("cannot connect by the old one, and is known by its own key as soon as it has fetched the new one", func(ctx context.Context, releases []string) {
		together(releases, func(version string) {
			server, dir := lonely(ctx, version)
			node, err := nodetest.New("phone")
			Expect(err).NotTo(HaveOccurred())
			Expect(node.RunOn(ctx, server.URL())).To(Succeed())
			Expect(node.Register(ctx, server.URL(), reusableKey(ctx, server))).To(BeTrue(), version)

			By("keeping the key")
			Expect(server.Stop()).To(Succeed())
			Expect(server.Start(ctx)).To(Succeed())
			Expect(node.Register(ctx, server.URL(), "")).To(BeTrue(), version)

			By("losing it")
			Expect(server.Stop()).To(Succeed())
			Expect(os.Remove(filepath.Join(dir, "noise_private.key"))).To(Succeed())
			Expect(server.Start(ctx)).To(Succeed())
			_, err = node.Register(ctx, server.URL(), "")
			Expect(err).To(HaveOccurred(), version)
			seen("a node that knows the old Noise key", version, err)
			node.Restart()
			Expect(node.Register(ctx, server.URL(), "")).To(BeTrue(), version)
			stranger, err := nodetest.New("stranger")
			Expect(err).NotTo(HaveOccurred())
			Expect(stranger.Register(ctx, server.URL(), "")).To(BeFalse(), version)
		})
	})
})

// lonely starts a Headscale without an operator, and returns its directory, too.
func lonely(ctx context.Context, version string) (server *env.Headscale, dir string) {
	GinkgoHelper()
	dir, err := os.MkdirTemp(guard.Dir(), "l-")
	Expect(err).NotTo(HaveOccurred())
	server, err = env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: world.Servers.Headscale[version], Guard: guard, Dir: dir, Output: GinkgoWriter})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { server.Kill() })
	return server, dir
}

// reusableKey is a pre-auth key of a new user.
func reusableKey(ctx context.Context, server *env.Headscale) string {
	GinkgoHelper()
	asks := headscale.NewClient(headscale.UnixSocket(server.SocketPath()))
	defer func() { _ = asks.Close() }()
	user, err := asks.CreateUser(ctx, headscale.NewUser{Name: "alice"})
	Expect(err).NotTo(HaveOccurred())
	key, err := asks.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.ID, Reusable: true, Expiration: time.Now().Add(time.Hour)})
	Expect(err).NotTo(HaveOccurred())
	return key.Key.Reveal()
}
