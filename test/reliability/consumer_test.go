package reliability_test

import (
	"context"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/test/reliability/observation"
)

// consumer is somebody who reads the key from the Secret every 20 ms and calls
// Headscale with it, as often as Headscale answers: it hashes the key each time.
type consumer struct {
	world *world
	lag   time.Duration
	end   func()

	// readings are what the Secret said, the latest last.
	readings []reading
	calls    int
	refusals int
	streak   int
	longest  int
}

type reading struct {
	at  time.Time
	key string
}

// consume starts a consumer that uses what the Secret said the lag ago. It must be
// stopped before it is asked how it went.
func (w *world) consume(lag time.Duration) *consumer {
	ctx, cancel := context.WithCancel(context.Background())
	c := &consumer{world: w, lag: lag}
	var working sync.WaitGroup
	working.Go(func() { c.work(ctx) })
	c.end = sync.OnceFunc(func() {
		cancel()
		working.Wait()
	})
	return c
}

// work reads at each tick, and has at most one call under way.
func (c *consumer) work(ctx context.Context) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	idle := make(chan struct{}, 1)
	idle <- struct{}{}
	var calling sync.WaitGroup
	defer calling.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.read(ctx)
		}
		key, known := c.known()
		if !known {
			continue
		}
		select {
		case <-idle:
			calling.Go(func() {
				c.call(ctx, key)
				idle <- struct{}{}
			})
		default:
		}
	}
}

func (c *consumer) read(ctx context.Context) {
	secret, err := c.world.secret(ctx)
	if client.IgnoreNotFound(err) != nil {
		return
	}
	c.readings = append(c.readings, reading{at: time.Now(), key: apikey.ReadRecord(secret).Key.Reveal()})
}

// known is the key of the latest reading that is as old as the lag, if there was one
// in the Secret. It forgets older readings.
func (c *consumer) known() (key string, known bool) {
	due := time.Now().Add(-c.lag)
	for len(c.readings) > 1 && !c.readings[1].at.After(due) {
		c.readings = c.readings[1:]
	}
	if len(c.readings) == 0 || c.readings[0].at.After(due) {
		return "", false
	}
	return c.readings[0].key, c.readings[0].key != ""
}

// call counts an answer. A Headscale that does not answer has not refused the key.
func (c *consumer) call(ctx context.Context, key string) {
	honoured, err := c.world.headscale.Honours(ctx, key)
	switch {
	case err != nil:
		return
	case honoured:
		c.streak = 0
	default:
		c.refusals++
		c.streak++
		c.longest = max(c.longest, c.streak)
	}
	c.calls++
}

// into stops the consumer and puts how it went into an observation.
func (c *consumer) into(o *observation.Observation) {
	c.end()
	o.Calls, o.Refusals, o.Streak = c.calls, c.refusals, c.longest
}
