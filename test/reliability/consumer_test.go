package reliability_test

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/test/keyuse"
)

// consumer is somebody who uses the key in the Secret all the time.
type consumer struct{ *keyuse.Consumer }

// consume starts a consumer that uses what the Secret said the lag ago. It must be
// stopped before it is asked how it went.
func (w *world) consume(lag time.Duration) consumer {
	return consumer{keyuse.Consume(keyuse.Means{Read: w.readKey, Honours: w.headscale.Honours, Lag: lag})}
}

// readKey is the text of the key in the Secret, empty without one.
func (w *world) readKey(ctx context.Context) (string, error) {
	secret, err := w.secret(ctx)
	if client.IgnoreNotFound(err) != nil {
		return "", err
	}
	return apikey.ReadKey(secret).Reveal(), nil
}

// into stops the consumer and puts how it went into an observation.
func (c consumer) into(o *observation) {
	tally := c.Stop()
	o.Calls, o.Refusals, o.Streak = tally.Calls, tally.Refusals, tally.Streak
}
