package headscale_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

var _ = Describe("A list of the pre-auth keys of many users", func() {
	// list takes longer than the timeout of a call.
	list := func(ctx SpecContext, number int, timeout time.Duration) error {
		server := startFake(socketPath(), headscaletest.V027)
		client := newClient(server.SocketPath(), headscale.WithCallTimeout(timeout))
		_, err := client.ListPreAuthKeys(ctx, nil)
		Expect(err).NotTo(HaveOccurred())
		server.Inject(headscaletest.Fault{On: headscaletest.ListPreAuthKeys, Delay: timeout + time.Second, Times: 1})
		users := make([]uint64, number)
		for i := range users {
			users[i] = uint64(i + 1)
		}
		_, err = client.ListPreAuthKeys(ctx, users)
		return err
	}

	It("takes longer up to 0.27, where each has one", func(ctx SpecContext) {
		// After the delay 500 calls have 28 ms each, on a busy machine, too.
		Expect(list(ctx, 500, 15*time.Second)).To(Succeed())
	})

	It("takes no longer than other calls for a few", func(ctx SpecContext) {
		Expect(list(ctx, 20, 5*time.Second)).To(MatchError(headscale.ErrUnavailable))
	})
})
