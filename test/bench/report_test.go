package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/keyuse"
)

func TestMedianAndPercentile(t *testing.T) {
	for name, test := range map[string]struct {
		values               []time.Duration
		median, percentile90 time.Duration
	}{
		"one":      {[]time.Duration{7}, 7, 7},
		"two":      {[]time.Duration{3, 1}, 2, 3},
		"three":    {[]time.Duration{9, 1, 2}, 2, 9},
		"ten":      {[]time.Duration{100, 90, 80, 70, 60, 50, 40, 30, 20, 10}, 55, 90},
		"eleven":   {[]time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 6, 10},
		"outliers": {[]time.Duration{1, 1, 1, 1, 1, 1, 1, 1, 1, 1000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 900}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := slices.Clone(test.values)
			g.Expect(median(test.values)).To(Equal(test.median))
			g.Expect(percentile90(test.values)).To(Equal(test.percentile90))
			g.Expect(test.values).To(Equal(before), "the order of the measurements stays")
		})
	}
}

func TestTheMachineIsNamed(t *testing.T) {
	NewWithT(t).Expect(thisMachine(t.Context())).To(
		MatchRegexp(`^Measured on \d{4}-\d\d-\d\d, commit .+, .+, \d+ cores, load average [0-9.]+ before, go1\..+\.$`))
}

// costOf are made-up figures of the operator.
func costOf(size int, memory float64) operatorCost {
	return operatorCost{
		size: size, made: time.Duration(size) * 20 * time.Millisecond, floor: time.Duration(size) * 10 * time.Millisecond,
		making: counts{requests: 16 * size, writes: 9 * size, created: 7 * size}, busy: time.Duration(size) * 10 * time.Millisecond,
		changing:     []time.Duration{30 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond},
		memoryBefore: 30, resting: resting{rest: time.Minute, busy: 600 * time.Millisecond, proportional: memory},
	}
}

// madeUp are rows of all subjects, of made-up figures.
func madeUp(t *testing.T) []row {
	ms := func(all ...int) (took []time.Duration) {
		for _, milliseconds := range all {
			took = append(took, time.Duration(milliseconds)*time.Millisecond)
		}
		return took
	}
	return slices.Concat(
		measureSizes(t.Context(), &settings{images: imagesOf(t, make([]byte, 25_000_000), make([]byte, 27_100_000))}),
		sidecarRows(resting{
			rest: time.Minute, busy: 6 * time.Millisecond, proportional: 21.95, resident: 40, requests: counts{requests: 1},
		}, 12, 16),
		firstKeyRows(ms(70), ms(100, 300, 200), ms(400), ms(90)),
		rotationRows("gRPC, Headscale "+headscaleVersion, ms(80, 100), ms(5, 201), keyuse.Tally{Calls: 90, Refusals: 2, Streak: 1}),
		rotationRows("HTTP, contract server for v0.30", ms(1), ms(1), keyuse.Tally{}),
		operatorRows([]operatorCost{costOf(1, 40), costOf(20, 41), costOf(100, 51), costOf(500, 59)}),
	)
}

func TestFiguresAreShownNextToWhatTheyShouldBe(t *testing.T) {
	NewWithT(t).Expect(strings.Split(table(madeUp(t)), "\n")).To(ContainElements(
		"| apikey-manager, binary | ≤ 25.0 MB | 25.0 MB | yes |",
		"| apikey-manager, image, unpacked | ≤ 27.0 MB | 27.1 MB | no |",
		"| API Key Manager at rest, processor | ≤ 0.05 % | 0.01 % | yes |",
		"| API Key Manager at rest, requests an hour besides the watch, by those in 1m0s | ≤ 2 | 60 | no |",
		"| API Key Manager at rest, memory (RSS) |  | 40.0 MiB |  |",
		"| API Key Manager at rest, open files and goroutines |  | 12 and 16 |  |",
		"| first key, the least possible, median |  | 0.07 s |  |",
		"| first key, manager started before Headscale, median | ≤ 0.30 s | 0.20 s | yes |",
		"| first key, manager started after Headscale, median | ≤ 0.30 s | 0.40 s | no |",
		"| gRPC, Headscale v0.29.3: new key after it was due, median |  | 0.090 s |  |",
		"| gRPC, Headscale v0.29.3: old key refused after the Secret's change, 90 % | ≤ 0.200 s | 0.201 s | no |",
		"| gRPC, Headscale v0.29.3: a consumer's refused calls |  | 2 of 90 |  |",
		"| operator's memory (PSS) with 100 Headscales | ≤ 50.0 MiB | 51.0 MiB | no |",
		"| 100 StatefulSets exist, the least possible, after |  | 1.00 s |  |",
		"| change until changed StatefulSet with 100 Headscales, median |  | 20 ms |  |",
		"| operator's processor at rest with 100 Headscales |  | 1.00 % |  |",
		"| 100 StatefulSets exist after | ≤ 1.50 s | 2.00 s | no |",
		"| writes for a new Headscale besides one for each object | ≤ 2.0 | 2.0 | yes |",
		"| requests, for each of 500 as against each of 20 | ≤ 1.20 | 1.00 | yes |",
		"| time until its StatefulSet exists, for each of 500 as against each of 20 | ≤ 1.20 | 1.00 | yes |",
		"| memory for each more, for each of 500 as against each of 20 | ≤ 1.20 | 0.38 | yes |",
	))
}

func TestOneSizeIsNotComparedWithItself(t *testing.T) {
	for _, costs := range [][]operatorCost{{costOf(20, 41)}, {costOf(1, 40)}, {costOf(1, 40), costOf(20, 41)}} {
		NewWithT(t).Expect(table(operatorRows(costs))).NotTo(ContainSubstring("as against"))
	}
}

// rowNames are what the rows of a table are about.
func rowNames(table string) (names []string) {
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, " | "); len(cells) == 4 {
			names = append(names, cells[0])
		}
	}
	return names
}

func TestThePageHasEveryFigure(t *testing.T) {
	g := NewWithT(t)
	page, err := os.ReadFile("../../docs/performance.md")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(rowNames(string(page))).To(Equal(rowNames(table(madeUp(t)))))
}
