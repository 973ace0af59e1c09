package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/keyuse"
)

const (
	// apart is how long the manager and Headscale start one after the other.
	apart = 3 * time.Second
	// late is how long Headscale takes in the worst case that is measured, and lateRuns how
	// often that is.
	late     = 45 * time.Second
	lateRuns = 3
	// wantedFirst is how long the first key should take, in seconds.
	wantedFirst = 0.3
)

// calm are settings with which no key is replaced while anything is measured.
var calm = []string{"--expiration=2160h", "--rotation-buffer=1920h"}

// firstKeys are the times to the first key.
type firstKeys struct {
	// floor is what Headscale and the API server need for it.
	floor []time.Duration
	// before and after say which of the two the manager was started before or after
	// Headscale, and veryLate is before with a Headscale that takes long.
	before, after, veryLate []time.Duration
}

// measureFirstKeys measures the time to the first key, with a fresh Headscale each time.
func measureFirstKeys(ctx context.Context, settings *settings) report {
	keys := &firstKeys{veryLate: make([]time.Duration, lateRuns)}
	inLab(settings, func(l *lab) {
		for run := range settings.runs {
			say("first key: %d of %d", run+1, settings.runs)
			// A Headscale's addresses and socket are known once it has run.
			l.atSite(ctx, func(h *env.Headscale, s *site) {
				keys.before = append(keys.before, s.measureBefore(ctx, h, apart))
				s.clear(ctx)
				pause(ctx, apart)
				keys.after = append(keys.after, s.measureAfter(ctx))
				s.clear(ctx)
				keys.floor = append(keys.floor, must(keyuse.Floor(ctx, s.kubeconfig, s.namespace, s.socket)))
			})
		}
		say("first key: Headscale %s late", late)
		// The managers wait at the same time; the Headscales start one after another.
		var group errgroup.Group
		for i := range lateRuns {
			group.Go(func() error {
				return attempt(func() {
					l.atSite(ctx, func(h *env.Headscale, s *site) {
						keys.veryLate[i] = s.measureBefore(ctx, h, late+time.Duration(i)*apart)
					})
				})
			})
		}
		check(group.Wait())
	})
	return describeFirstKeys(keys)
}

// measureBefore starts the manager, and Headscale on an empty database some time later. It
// returns the time from Headscale's first answer to the key in the Secret.
func (s *site) measureBefore(ctx context.Context, h *env.Headscale, wait time.Duration) time.Duration {
	check(h.Stop())
	h.Database = "first.sqlite"
	stored := s.whenStored(ctx)
	s.start(calm...)
	pause(ctx, wait)
	answered := make(chan time.Time, 1)
	go func() { answered <- keyuse.FirstAnswer(ctx, s.socket) }()
	check(h.Start(ctx))
	return stored().Sub(<-answered)
}

// measureAfter starts the manager when Headscale has been there for a while. It returns the
// time from the start of the process to the key in the Secret.
func (s *site) measureAfter(ctx context.Context) time.Duration {
	stored := s.whenStored(ctx)
	began := time.Now()
	s.start(calm...)
	return stored().Sub(began)
}

// timing is how long something took, each time that it was measured.
type timing struct {
	what string
	took []time.Duration
}

// describeFirstKeys makes the tables of the times to the first key.
func describeFirstKeys(k *firstKeys) report {
	waiting := "manager waiting for %s: from Headscale's first answer on its socket"
	return report{[]string{table("measured | runs | median | 90 %", []timing{
		{"the least possible: Headscale makes a key, and the Secret is written twice", k.floor},
		{fmt.Sprintf(waiting, apart), k.before},
		{fmt.Sprintf("Headscale running for %s: from the start of the manager's process", apart), k.after},
		{fmt.Sprintf(waiting, late), k.veryLate},
	}, func(t timing) []string {
		return []string{t.what, fmt.Sprint(len(t.took)), milliseconds(median(t.took)), milliseconds(percentile90(t.took))}
	})}, []target{
		noted("first key, the least possible, median", seconds(median(k.floor))),
		atMost("first key, manager started before Headscale, median", median(k.before).Seconds(), wantedFirst, "%.2f s"),
		atMost("first key, manager started after Headscale, median", median(k.after).Seconds(), wantedFirst, "%.2f s"),
		atMost(fmt.Sprintf("first key, Headscale %s late, median", late), median(k.veryLate).Seconds(), wantedFirst, "%.2f s"),
	}}
}
