// Package keyuse looks at an API key from where its users are: when it is there, what they
// wait for at least, and whether Headscale lets them in. Tests and benchmarks share it.
package keyuse

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
)

// interval is how often a consumer reads the Secret.
const interval = 20 * time.Millisecond

// Means are how a consumer comes by the key, and uses it.
type Means struct {
	// Read returns the key that is in the Secret, or "" while there is none: see SecretReader.
	Read func(ctx context.Context) (key string, err error)
	// Honours calls Headscale with the key and returns whether it was let in.
	Honours func(ctx context.Context, key string) (bool, error)
	// Lag is how old what was read is when it is used.
	Lag time.Duration
}

// SecretReader reads the key in the Secret of the default name in a namespace.
func SecretReader(kube client.Reader, namespace string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		secret := &corev1.Secret{}
		err := kube.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1beta1.DefaultSecretName}, secret)
		return apikey.ReadKey(secret).Reveal(), client.IgnoreNotFound(err)
	}
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
	means  Means
	end    func()
	tally  Tally
	streak int
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

// work reads at each tick, and has at most one call under way. While the Secret cannot be read,
// the key is the one that it had before.
func (c *Consumer) work(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var calling sync.Mutex
	var key string
	for {
		select {
		case <-ctx.Done():
			calling.Lock() // The last call ends, too, and there is none after it.
			return
		case <-tick.C:
		}
		if read, err := c.means.Read(ctx); err == nil {
			key = read
		}
		if used := key; used != "" {
			time.AfterFunc(c.means.Lag, func() {
				if calling.TryLock() {
					defer calling.Unlock()
					c.call(ctx, used)
				}
			})
		}
	}
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
