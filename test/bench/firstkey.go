package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/figures"
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

// firstKeyTakes is about how long measureFirstKeys takes.
func firstKeyTakes(s *settings) time.Duration {
	return 25*time.Second + late + 5*time.Second + time.Duration(s.runs)*7*time.Second
}

// measureFirstKeys measures the time to the first key, with a fresh Headscale each time.
func measureFirstKeys(ctx context.Context, l *lab) (report, error) {
	keys := &firstKeys{}
	err := l.onStage(ctx, func(ctx context.Context, s *stage) error {
		for run := range l.settings.runs {
			say("first key: %d of %d", run+1, l.settings.runs)
			// A Headscale's addresses and socket are known once it has run.
			err := l.atSite(ctx, s, func(h *env.Headscale, site *site) error { return keys.measure(ctx, h, site) })
			if err != nil {
				return err
			}
		}
		say("first key: Headscale %s late", late)
		return keys.measureLate(ctx, l, s)
	})
	if err != nil {
		return report{}, err
	}
	return describeFirstKeys(keys), nil
}

// measure measures once with each order.
func (k *firstKeys) measure(ctx context.Context, h *env.Headscale, site *site) error {
	before, err := site.measureBefore(ctx, h, apart)
	if err != nil {
		return fmt.Errorf("manager before Headscale: %w", err)
	}
	if err := errors.Join(site.clear(ctx), pause(ctx, apart)); err != nil {
		return err
	}
	after, err := site.measureAfter(ctx)
	if err != nil {
		return fmt.Errorf("manager after Headscale: %w", err)
	}
	if err := site.clear(ctx); err != nil {
		return err
	}
	floor, err := keyuse.Floor(ctx, site.kubeconfig, site.namespace, site.socket)
	k.before, k.after, k.floor = append(k.before, before), append(k.after, after), append(k.floor, floor)
	return err
}

// measureBefore starts the manager, and Headscale on an empty database some time later. It
// returns the time from Headscale's first answer to the key in the Secret.
func (s *site) measureBefore(ctx context.Context, h *env.Headscale, wait time.Duration) (time.Duration, error) {
	if err := h.Stop(); err != nil {
		return 0, err
	}
	h.Database = "first.sqlite"
	when, err := s.whenStored(ctx)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(s.start(calm...), pause(ctx, wait)); err != nil {
		return 0, err
	}
	answered := make(chan time.Time, 1)
	go func() { answered <- keyuse.FirstAnswer(ctx, s.socket) }()
	if err := h.Start(ctx); err != nil {
		return 0, err
	}
	stored, err := when()
	return stored.Sub(<-answered), err
}

// measureAfter starts the manager when Headscale has been there for a while. It returns the
// time from the start of the process to the key in the Secret.
func (s *site) measureAfter(ctx context.Context) (time.Duration, error) {
	when, err := s.whenStored(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.start(calm...); err != nil {
		return 0, err
	}
	stored, err := when()
	return stored.Sub(began), err
}

// measureLate measures with Headscales that start long after the manager. The managers wait
// at the same time; the Headscales start one after another.
func (k *firstKeys) measureLate(ctx context.Context, l *lab, s *stage) error {
	k.veryLate = make([]time.Duration, lateRuns)
	group, ctx := errgroup.WithContext(ctx)
	for i := range lateRuns {
		group.Go(func() error {
			return l.atSite(ctx, s, func(h *env.Headscale, site *site) (err error) {
				k.veryLate[i], err = site.measureBefore(ctx, h, late+time.Duration(i)*apart)
				return err
			})
		})
	}
	return group.Wait()
}

// describeFirstKeys makes the tables of the times to the first key.
func describeFirstKeys(k *firstKeys) report {
	before, after := figures.Median(k.before), figures.Median(k.after)
	return report{[]string{figures.Table([]string{"measured", "runs", "median", "90 %"}, [][]string{
		durationsRow("the least possible: Headscale makes a key, and the Secret is written twice", k.floor),
		durationsRow(fmt.Sprintf("manager waiting for %s: from Headscale's first answer on its socket", apart), k.before),
		durationsRow(fmt.Sprintf("Headscale running for %s: from the start of the manager's process", apart), k.after),
		durationsRow(fmt.Sprintf("manager waiting for %s: from Headscale's first answer on its socket", late), k.veryLate),
	})}, []target{
		noted("first key, the least possible, median", fmt.Sprintf("%.2f s", figures.Median(k.floor).Seconds())),
		atMost("first key, manager started before Headscale, median", before.Seconds(), wantedFirst, "%.2f s"),
		atMost("first key, manager started after Headscale, median", after.Seconds(), wantedFirst, "%.2f s"),
		atMost(fmt.Sprintf("first key, Headscale %s late, median", late), figures.Median(k.veryLate).Seconds(), wantedFirst, "%.2f s"),
	}}
}

// durationsRow shows how long something took.
func durationsRow(what string, took []time.Duration) []string {
	return []string{what, fmt.Sprint(len(took)), milliseconds(figures.Median(took)), milliseconds(figures.Percentile90(took))}
}
