package main

import (
	"context"
	"fmt"
	"os"
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

// measureSidecar looks on while the manager has nothing to do.
func measureSidecar(ctx context.Context, settings *settings) (rows []row) {
	inLab(ctx, settings, func(ctx context.Context, l *lab) {
		l.atSite(ctx, func(_ *env.Headscale, s *site) {
			s.measureAfter(ctx)
			pause(ctx, warmUp)
			say("the API Key Manager at rest for %s", settings.sidecarRest)
			pid := s.manager.PID()
			used := l.watchRest(ctx, settings.sidecarRest, pid)
			files := must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)))
			_, metrics, err := env.Get(ctx, "http://"+s.metrics+"/metrics", "")
			check(err)
			rows = sidecarRows(used, len(files), numberIn(metrics, `(?m)^go_goroutines (\d+)$`))
		})
	})
	return rows
}

// sidecarRows are about the manager at rest, with its open files and goroutines.
func sidecarRows(used resting, files int, goroutines float64) []row {
	const at = "API Key Manager at rest, "
	hourly := float64(used.requests.requests) / used.rest.Hours()
	return []row{
		atMost(at+"memory (PSS)", "%.1f MiB", used.proportional, wantedSidecarMemory),
		atMost(at+"processor", "%.2f %%", used.percent(), wantedSidecarBusy),
		atMost(at+"requests an hour besides the watch, by those in "+used.rest.String(), "%.0f", hourly, wantedRequests),
		noted(at+"memory (RSS)", "%.1f MiB", used.resident),
		noted(at+"open files and goroutines", "%d and %.0f", files, goroutines),
	}
}
