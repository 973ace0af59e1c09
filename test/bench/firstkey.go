package main

import (
	"context"
	"fmt"
	"time"

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

// measureFirstKeys measures the time to the first key, with a fresh Headscale each time.
func measureFirstKeys(ctx context.Context, settings *settings) []row {
	var floor, before, after, veryLate []time.Duration
	inLab(ctx, settings, func(ctx context.Context, l *lab) {
		for run := range settings.runs {
			say("first key: %d of %d", run+1, settings.runs)
			l.atSite(ctx, func(h *env.Headscale, s *site) {
				before = append(before, s.measureBefore(ctx, h, apart))
				s.clear(ctx)
				pause(ctx, apart)
				after = append(after, s.measureAfter(ctx))
				s.clear(ctx)
				floor = append(floor, must(keyuse.Floor(ctx, s.kubeconfig, s.namespace, s.socket)))
			})
		}
		for run := range lateRuns {
			say("first key, Headscale %s late: %d of %d", late, run+1, lateRuns)
			l.atSite(ctx, func(h *env.Headscale, s *site) {
				veryLate = append(veryLate, s.measureBefore(ctx, h, late))
			})
		}
	})
	return firstKeyRows(floor, before, after, veryLate)
}

// measureBefore starts the manager, and Headscale on an empty database some time later. It
// returns the time from Headscale's first answer to the key in the Secret. The Headscale runs
// already, because its addresses and its socket are known only then.
func (s *site) measureBefore(ctx context.Context, h *env.Headscale, wait time.Duration) time.Duration {
	check(h.Stop())
	h.Database = "first.sqlite"
	s.start(calm...)
	pause(ctx, wait)
	var answered, stored time.Time
	together(ctx,
		func(ctx context.Context) { check(h.Start(ctx)) },
		func(ctx context.Context) { answered = keyuse.FirstAnswer(ctx, s.socket) },
		func(ctx context.Context) { stored = s.nextKey(ctx) })
	return stored.Sub(answered)
}

// measureAfter starts the manager when Headscale has been there for a while. It returns the
// time from the start of the process to the key in the Secret.
func (s *site) measureAfter(ctx context.Context) time.Duration {
	began := time.Now()
	s.start(calm...)
	return s.nextKey(ctx).Sub(began)
}

// firstKeyRows are about the times to the first key: floor is what Headscale and the API server
// need for it, before and after say which of the two the manager was started before or after
// Headscale, and veryLate is before with a Headscale that takes long.
func firstKeyRows(floor, before, after, veryLate []time.Duration) []row {
	within := func(what string, took []time.Duration) row {
		return atMost("first key, "+what+", median", "%.2f s", median(took).Seconds(), wantedFirst)
	}
	return []row{
		noted("first key, the least possible, median", "%.2f s", median(floor).Seconds()),
		within("manager started before Headscale", before),
		within("manager started after Headscale", after),
		within(fmt.Sprintf("Headscale %s late", late), veryLate),
	}
}
