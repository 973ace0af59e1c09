package main

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/keyuse"
)

func TestTimesToTheFirstKeyAreShown(t *testing.T) {
	g := NewWithT(t)
	text := describeFirstKeys(&firstKeys{
		floor:    []time.Duration{70 * time.Millisecond},
		before:   []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, 200 * time.Millisecond},
		after:    []time.Duration{400 * time.Millisecond},
		veryLate: []time.Duration{90 * time.Millisecond},
	}).text()
	g.Expect(text).To(ContainSubstring("\n| manager waiting for 3s: from Headscale's first answer on its socket | 3 | 200 ms | 300 ms |\n"))
	g.Expect(text).To(ContainSubstring("\n| manager waiting for 45s: from Headscale's first answer on its socket | 1 | 90 ms | 90 ms |\n"))
	g.Expect(text).To(ContainSubstring("\n| first key, the least possible, median |  | 0.07 s |  |\n"))
	g.Expect(text).To(ContainSubstring("\n| first key, manager started after Headscale, median | ≤ 0.30 s | 0.40 s | no |\n"))
}

func TestRotationsAreShownByTransport(t *testing.T) {
	g := NewWithT(t)
	text := describeRotations([]*rotations{{
		transport: "gRPC", late: []time.Duration{80 * time.Millisecond, 100 * time.Millisecond},
		refused: []time.Duration{5 * time.Millisecond, 201 * time.Millisecond},
		tally:   keyuse.Tally{Calls: 90, Refusals: 2, Streak: 1}, used: 4,
	}}).text()
	g.Expect(text).To(ContainSubstring("\n| gRPC | 2 | 90 ms | 100 ms | 103 ms | 201 ms | 2 of 90 in 4 rotations (1) |\n"))
	g.Expect(text).To(ContainSubstring("\n| gRPC: old key refused after the Secret's change, 90 % | ≤ 0.200 s | 0.201 s | no |"))
}

func TestTheSidecarAtRestIsShown(t *testing.T) {
	g := NewWithT(t)
	text := describeSidecar(&sidecarCost{
		resting: resting{
			rest: 30 * time.Minute, proportional: 21.95, anonymous: 4, resident: 40, busy: 90 * time.Millisecond,
			requests: counts{requests: 2, watches: 1},
		},
		scraped: 23, files: 9, goroutines: 14,
	}).text()
	g.Expect(text).To(ContainSubstring("\n| 30m0s | 21.9 MiB | 4.0 MiB | 40.0 MiB | 90 ms (0.01 %) | 2 (1) | 9 | 14 | 23.0 MiB |\n"))
	g.Expect(text).To(ContainSubstring("\n| API Key Manager at rest, requests an hour besides the watch, by those in 30m0s | ≤ 2 | 2 | yes |"))
}

func TestGoroutinesInMetrics(t *testing.T) {
	g := NewWithT(t)
	g.Expect(parseGoroutines("# HELP go_goroutines Number\n# TYPE go_goroutines gauge\ngo_goroutines 14\nx 1\n")).To(Equal(14))
	for _, text := range []string{"", "go_goroutines_total 1\n", "go_goroutines none\n"} {
		_, err := parseGoroutines(text)
		g.Expect(err).To(HaveOccurred())
	}
}
