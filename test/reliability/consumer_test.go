package reliability_test

import (
	"time"

	"infrado.cloud/headscale-operator/test/keyuse"
)

// consumer is somebody who uses the key in the Secret all the time.
type consumer struct{ *keyuse.Consumer }

// consume starts a consumer that uses what the Secret said the lag ago. It must be
// stopped before it is asked how it went.
func (w *world) consume(lag time.Duration) consumer {
	return consumer{keyuse.Consume(keyuse.Means{Read: keyuse.SecretReader(admin, w.namespace), Honours: w.headscale.Honours, Lag: lag})}
}

// into stops the consumer and puts how it went into an observation.
func (c consumer) into(o *observation) {
	tally := c.Stop()
	o.Calls, o.Refusals, o.Streak = tally.Calls, tally.Refusals, tally.Streak
}
