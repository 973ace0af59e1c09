package keyuse_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/keyuse"
)

func TestAConsumerCountsWhatItIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stored, honoured atomic.Value
		stored.Store("")
		honoured.Store("")
		consumer := keyuse.Consume(keyuse.Means{
			Read: func(context.Context) (string, error) {
				if stored.Load() == "unreadable" {
					return "", errors.New("unreadable")
				}
				return stored.Load().(string), nil //nolint:errcheck // strings alone are stored
			},
			Honours: func(ctx context.Context, key string) (bool, error) {
				select {
				case <-time.After(65 * time.Millisecond):
				case <-ctx.Done():
					return false, ctx.Err()
				}
				if honoured.Load() == "away" {
					return false, errors.New("away")
				}
				return key == honoured.Load(), nil
			},
		})
		for _, moment := range []struct{ stored, honoured string }{
			{"", ""},            // there is no key, and so no call
			{"a", "a"},          // five calls in half a second
			{"a", "b"},          // all refused
			{"b", "b"},          // well again
			{"b", "away"},       // no answer is no refusal
			{"unreadable", "b"}, // what was read last is used
		} {
			stored.Store(moment.stored)
			honoured.Store(moment.honoured)
			<-time.After(500 * time.Millisecond)
		}
		tally := consumer.Stop()
		g := NewWithT(t)
		g.Expect(tally.Refusals).To(And(BeNumerically(">=", 5), Equal(tally.Streak)))
		g.Expect(tally.Calls).To(BeNumerically(">=", 4*5))
		g.Expect(consumer.Stop()).To(Equal(tally))
	})
}

func TestAConsumerWithALagUsesWhatTheSecretSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		replaced := began.Add(time.Second)
		consumer := keyuse.Consume(keyuse.Means{
			Lag: 300 * time.Millisecond,
			Read: func(context.Context) (string, error) {
				if time.Now().Before(replaced) {
					return "old", nil
				}
				return "new", nil
			},
			Honours: func(_ context.Context, key string) (bool, error) {
				return key == "new" || time.Now().Before(replaced), nil
			},
		})
		<-time.After(2 * time.Second)
		tally := consumer.Stop()
		g := NewWithT(t)
		g.Expect(tally.Refusals).To(BeNumerically("~", 300/20, 1), "the old key is used for as long as the lag")
		g.Expect(tally.Streak).To(Equal(tally.Refusals))
		g.Expect(tally.Calls).To(BeNumerically("~", (2000-300)/20, 2))
	})
}
