// Package keyuse looks at an API key from where its users are: when it is there, what they
// wait for at least, and whether Headscale lets them in. Tests and benchmarks share it.
package keyuse

import (
	"context"
	"sync"
	"time"
)

// interval is how often a consumer reads the Secret.
const interval = 20 * time.Millisecond

// Means are how a consumer comes by the key, and uses it.
type Means struct {
	// Read returns the key that is in the Secret, or "" while there is none.
	Read func(ctx context.Context) (key string, err error)
	// Honours calls Headscale with the key and returns whether it was let in.
	Honours func(ctx context.Context, key string) (bool, error)
	// Lag is how old what was read is when it is used.
	Lag time.Duration
}

// Tally is how it went.
type Tally struct {
	// Calls is how often Headscale answered, Refusals how often it refused the key, and
	// Streak how often in a row at most.
	Calls, Refusals, Streak int
}

// Consumer is somebody who reads the key from the Secret every 20 ms and calls
// Headscale with it, as often as Headscale answers: it hashes the key each time.
type Consumer struct {
	means Means
	end   func()

	// readings are what the Secret said, the latest last.
	readings []reading
	tally    Tally
	streak   int
}

type reading struct {
	at  time.Time
	key string
}

// Consume starts a consumer. It must be stopped.
func Consume(means Means) *Consumer {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Consumer{means: means}
	var working sync.WaitGroup
	working.Go(func() { c.work(ctx) })
	c.end = sync.OnceFunc(func() {
		cancel()
		working.Wait()
	})
	return c
}

// Stop ends the consumer and returns how it went.
func (c *Consumer) Stop() Tally {
	c.end()
	return c.tally
}

// work reads at each tick, and has at most one call under way.
func (c *Consumer) work(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var calling sync.Mutex
	for {
		select {
		case <-ctx.Done():
			calling.Lock() // The last call ends, too.
			return
		case <-tick.C:
		}
		if key, err := c.means.Read(ctx); err == nil {
			c.readings = append(c.readings, reading{at: time.Now(), key: key})
		}
		if key := c.known(); key != "" && calling.TryLock() {
			go func() {
				defer calling.Unlock()
				c.call(ctx, key)
			}()
		}
	}
}

// known is the key of the latest reading that is as old as the lag, or "" if there was none in
// the Secret. It forgets older readings.
func (c *Consumer) known() string {
	due := time.Now().Add(-c.means.Lag)
	for len(c.readings) > 1 && !c.readings[1].at.After(due) {
		c.readings = c.readings[1:]
	}
	if len(c.readings) == 0 || c.readings[0].at.After(due) {
		return ""
	}
	return c.readings[0].key
}

// call counts an answer. A Headscale that does not answer has not refused the key.
func (c *Consumer) call(ctx context.Context, key string) {
	honoured, err := c.means.Honours(ctx, key)
	switch {
	case err != nil:
		return
	case honoured:
		c.streak = 0
	default:
		c.tally.Refusals++
		c.streak++
		c.tally.Streak = max(c.tally.Streak, c.streak)
	}
	c.tally.Calls++
}
