package reliability_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/apikey"
)

// unrest says what is not as it is to be at rest: exactly one unexpired key of ours
// exists, it is the one in the Secret, the ledger is closed, and the key works. A mark
// of a key that has not appeared counts as rest: it stays for rotation.PendingTimeout.
func (w *world) unrest(ctx context.Context) (string, error) {
	secret, err := w.secret(ctx)
	if err != nil {
		return "", err
	}
	live, err := w.live(ctx)
	if err != nil {
		return "", err
	}
	record, key := apikey.ReadRecord(secret), apikey.ReadKey(secret)
	prefix, wellFormed := key.Prefix()
	switch {
	case !wellFormed:
		return "the Secret holds no key", nil
	case len(live) != 1:
		return fmt.Sprintf("there are %d unexpired keys", len(live)), nil
	case live[0].Prefix != prefix || record.ID != prefix:
		return fmt.Sprintf("the Secret holds the key %s and notes %s, and Headscale honours %s", prefix, record.ID, live[0].Prefix), nil
	case !live[0].Expiration.Equal(record.Expiration):
		return fmt.Sprintf("the Secret says %s, and Headscale %s", record.Expiration, live[0].Expiration), nil
	case record.CreatedAt.IsZero():
		return "the Secret does not say when the key was made", nil
	case len(record.Retiring) > 0:
		return "a key is retiring", nil
	case record.Requested != record.Handled:
		return "a rotation was requested and not done", nil
	}
	if honoured, err := w.headscale.Honours(ctx, key.Reveal()); err != nil || !honoured {
		return "Headscale refuses the key", err
	}
	return "", nil
}

// keyOnItsWay is what unsettled says of a mark of a key that has not appeared.
const keyOnItsWay = "a key is on its way"

// unsettled is unrest, and says of a mark of a key that has not appeared, too.
func (w *world) unsettled(ctx context.Context) (string, error) {
	if unrest, err := w.unrest(ctx); unrest != "" || err != nil {
		return unrest, err
	}
	secret, err := w.secret(ctx)
	if err == nil && len(apikey.ReadRecord(secret).Pending) > 0 {
		return keyOnItsWay, nil
	}
	return "", err
}

// healLimit is how long healing may take: the thirty seconds within which what happens in
// Headscale is promised to be healed (it is polled every 25), and thirty for a starved machine.
const healLimit = time.Minute

// heals waits for rest and returns how long that took.
func (w *world) heals(ctx context.Context) time.Duration {
	GinkgoHelper()
	began := time.Now()
	Eventually(ctx, w.unrest).WithTimeout(healLimit).Should(BeEmpty())
	return time.Since(began)
}

// quiet is how long a manager at rest has asked the API server for nothing. When it begins to
// watch the Secret it looks at it once more, within milliseconds.
const quiet = time.Second

// rests waits until the manager has nothing to do: a look that a failure meets half-way is told of,
// too.
func (w *world) rests(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Consistently(ctx, w.api.Requests).WithTimeout(quiet).Should(Equal(w.api.Requests()))
	}).Should(Succeed())
}
