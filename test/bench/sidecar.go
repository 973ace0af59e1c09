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
	resting
	// scraped is proportional once the metrics have been read.
	scraped           float64
	files, goroutines int
}

// measureSidecar looks on while the manager has nothing to do.
func measureSidecar(ctx context.Context, settings *settings) report {
	cost := &sidecarCost{}
	inLab(settings, func(l *lab) {
		l.atSite(ctx, func(_ *env.Headscale, s *site) {
			s.measureAfter(ctx)
			pause(ctx, warmUp)
			say("the API Key Manager at rest for %s", settings.sidecarRest)
			pid := s.manager.PID()
			cost.resting = l.watchRest(ctx, settings.sidecarRest, pid, s.user())
			cost.files = len(must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))))
			cost.goroutines = must(parseGoroutines(s.readMetrics(ctx)))
			cost.scraped = memoryOf(pid, "Pss")
		})
	})
	return describeSidecar(cost)
}

// readMetrics asks the manager for its metrics.
func (s *site) readMetrics(ctx context.Context) string {
	request := must(http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+"/metrics", http.NoBody))
	response, err := http.DefaultClient.Do(request)
	check(err)
	defer func() { _ = response.Body.Close() }()
	return string(must(io.ReadAll(response.Body)))
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
	others := c.requests.requests - c.requests.watches
	titles := "at rest for | memory (PSS) | of which anonymous | memory (RSS) | processor | requests (watches begun anew) | " +
		"open files | goroutines | memory after a scrape (PSS)"
	return report{[]string{table(titles, []*sidecarCost{c}, func(*sidecarCost) []string {
		return []string{
			c.rest.String(), mebibytes(c.proportional), mebibytes(c.anonymous), mebibytes(c.resident),
			fmt.Sprintf("%s (%.2f %%)", milliseconds(c.busy), c.percent()),
			fmt.Sprintf("%d (%d)", c.requests.requests, c.requests.watches), fmt.Sprint(c.files), fmt.Sprint(c.goroutines), mebibytes(c.scraped),
		}
	})}, []target{
		atMost("API Key Manager at rest, memory (PSS)", c.proportional, wantedSidecarMemory, "%.1f MiB"),
		atMost("API Key Manager at rest, processor", c.percent(), wantedSidecarBusy, "%.2f %%"),
		atMost("API Key Manager at rest, requests an hour besides the watch, by those in "+c.rest.String(),
			float64(others)*float64(time.Hour)/float64(c.rest), wantedRequests, "%.0f"),
		noted("API Key Manager at rest, memory (RSS)", mebibytes(c.resident)),
		noted("API Key Manager at rest, open files and goroutines", fmt.Sprintf("%d and %d", c.files, c.goroutines)),
	}}
}
