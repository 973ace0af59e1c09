package headscaletest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// inBubble runs a test on a fake clock, with a server that has no socket.
func inBubble(t *testing.T, release headscaletest.Release, test func(*testing.T, Gomega, *headscaletest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		server := headscaletest.New("", release)
		g.Expect(server.Start()).To(Succeed())
		defer server.Stop()
		test(t, g, server)
	})
}

func TestDirectIsTheSameAPI(t *testing.T) {
	inBubble(t, headscaletest.V028, func(t *testing.T, g Gomega, server *headscaletest.Server) {
		api, ctx := server.Direct(), t.Context()
		expiration := time.Now().Add(90 * 24 * time.Hour)
		key, err := api.CreateAPIKey(ctx, expiration)
		g.Expect(err).NotTo(HaveOccurred())
		prefix, _ := key.Prefix()
		server.Mint(nil)
		g.Expect(api.ListAPIKeys(ctx)).To(HaveExactElements(
			headscale.APIKey{ID: 1, Prefix: prefix, Expiration: expiration.UTC(), CreatedAt: time.Now().UTC(), Masked: true},
			And(HaveField("ID", uint64(2)), HaveField("Expiration", BeZero())),
		))
		time.Sleep(89 * 24 * time.Hour) //nolint:forbidigo // on the clock of the bubble
		g.Expect(server.Validate(key.Reveal())).To(BeTrue())
		g.Expect(api.ExpireAPIKey(ctx, prefix)).To(Succeed())
		g.Expect(server.Validate(key.Reveal())).To(BeFalse())
		g.Expect(api.ExpireAPIKey(ctx, "nope")).To(MatchError(headscale.ErrNotFound))
	})
}

func TestDirectGivesUpAsAClientDoes(t *testing.T) {
	inBubble(t, headscaletest.V030, func(t *testing.T, g Gomega, server *headscaletest.Server) {
		api, began := server.Direct(), time.Now()
		server.Inject(headscaletest.Fault{On: headscaletest.Create, Delay: time.Minute})
		_, err := api.CreateAPIKey(t.Context(), time.Now().Add(time.Hour))
		g.Expect(err).To(MatchError(headscale.ErrUnavailable))
		g.Expect(err).To(MatchError(context.DeadlineExceeded))
		g.Expect(time.Since(began)).To(Equal(headscale.CallTimeout))
		g.Expect(server.Minted()).To(BeZero())
		time.Sleep(time.Minute) //nolint:forbidigo // on the clock of the bubble
		g.Expect(server.Minted()).To(Equal(1), "the work went on")

		cancelled, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = api.CreateAPIKey(cancelled, time.Now().Add(time.Hour))
		g.Expect(err).To(MatchError(context.Canceled))
		g.Expect(err).NotTo(MatchError(headscale.ErrUnavailable))

		server.Stop()
		g.Expect(server.Minted()).To(Equal(1), "what was in progress is not done")
		_, err = api.ListAPIKeys(t.Context())
		g.Expect(err).To(MatchError(headscale.ErrUnavailable))
	})
}
