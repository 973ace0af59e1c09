package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/figures"
)

const (
	// warmUp is how long after its first key the manager counts as at rest.
	warmUp = 10 * time.Second
	// What the manager should need.
	wantedSidecarMemory = 22.0 // MiB
	wantedSidecarBusy   = 0.05 // percent of a processor, which is what one step of the kernel's accounts is in 20 s
	wantedRequests      = 2.0  // an hour, besides the watch
)

// sidecarCost is what the API Key Manager needs at rest.
type sidecarCost struct {
	rest time.Duration
	// memory in MiB; anonymous is the part of proportional that is no page of the binary.
	// scraped is proportional once the metrics have been read.
	proportional, anonymous, resident, scraped float64
	busy                                       time.Duration
	requests                                   counts
	files, goroutines                          int
}

// sidecarTakes is about how long measureSidecar takes.
func sidecarTakes(s *settings) time.Duration { return 25*time.Second + warmUp + s.sidecarRest }

// measureSidecar looks on while the manager has nothing to do.
func measureSidecar(ctx context.Context, l *lab) (report, error) {
	cost := &sidecarCost{rest: l.settings.sidecarRest}
	err := l.onStage(ctx, func(ctx context.Context, s *stage) error {
		return l.atSite(ctx, s, func(_ *env.Headscale, site *site) error {
			if _, err := site.measureAfter(ctx); err != nil {
				return err
			}
			if err := pause(ctx, warmUp); err != nil {
				return err
			}
			return cost.measure(ctx, site)
		})
	})
	if err != nil {
		return report{}, err
	}
	return describeSidecar(cost), nil
}

// measure looks at the process when some time has passed.
func (c *sidecarCost) measure(ctx context.Context, s *site) error {
	pid := s.manager.PID()
	before, err := s.audit.count(s.user())
	if err != nil {
		return err
	}
	busyBefore, err := processorTime(pid)
	if err != nil {
		return err
	}
	say("the API Key Manager at rest for %s", c.rest)
	if err := pause(ctx, c.rest); err != nil {
		return err
	}
	busy, err := processorTime(pid)
	if err != nil {
		return err
	}
	after, err := s.audit.count(s.user())
	if err != nil {
		return err
	}
	c.busy, c.requests = busy-busyBefore, after.minus(before)
	if c.proportional, err = memory(pid); err != nil {
		return err
	}
	if c.anonymous, err = memoryOf(pid, "Pss_Anon"); err != nil {
		return err
	}
	if c.resident, err = memoryOf(pid, "Rss"); err != nil {
		return err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	c.files = len(files)
	if c.goroutines, err = goroutines(ctx, "http://"+s.metrics+"/metrics"); err != nil {
		return err
	}
	c.scraped, err = memory(pid)
	return err
}

// mebibytes shows an amount of memory.
func mebibytes(amount float64) string { return fmt.Sprintf("%.1f MiB", amount) }

// goroutines asks for a program's metrics and returns how many goroutines it has.
func goroutines(ctx context.Context, url string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	return parseGoroutines(string(text))
}

// parseGoroutines finds the number of goroutines in a program's metrics.
func parseGoroutines(metrics string) (int, error) {
	for line := range strings.Lines(metrics) {
		if number, found := strings.CutPrefix(line, "go_goroutines "); found {
			return strconv.Atoi(strings.TrimSpace(number))
		}
	}
	return 0, errors.New("the metrics do not tell the number of goroutines")
}

// describeSidecar makes the tables of the API Key Manager at rest.
func describeSidecar(c *sidecarCost) report {
	percent := 100 * c.busy.Seconds() / c.rest.Seconds()
	others := c.requests.requests - c.requests.watches
	return report{[]string{figures.Table([]string{
		"at rest for", "memory (PSS)", "of which anonymous", "memory (RSS)", "processor", "requests (watches begun anew)", "open files", "goroutines", "memory after a scrape (PSS)",
	}, [][]string{{
		c.rest.String(), mebibytes(c.proportional), mebibytes(c.anonymous), mebibytes(c.resident),
		fmt.Sprintf("%s (%.2f %%)", milliseconds(c.busy), percent),
		fmt.Sprintf("%d (%d)", c.requests.requests, c.requests.watches), fmt.Sprint(c.files), fmt.Sprint(c.goroutines), mebibytes(c.scraped),
	}})}, []target{
		atMost("API Key Manager at rest, memory (PSS)", c.proportional, wantedSidecarMemory, "%.1f MiB"),
		atMost("API Key Manager at rest, processor", percent, wantedSidecarBusy, "%.2f %%"),
		atMost("API Key Manager at rest, requests an hour besides the watch, by those in "+c.rest.String(),
			float64(others)*float64(time.Hour)/float64(c.rest), wantedRequests, "%.0f"),
		noted("API Key Manager at rest, memory (RSS)", mebibytes(c.resident)),
		noted("API Key Manager at rest, open files and goroutines", fmt.Sprintf("%d and %d", c.files, c.goroutines)),
	}}
}
