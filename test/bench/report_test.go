package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/audit"
	"infrado.cloud/headscale-operator/test/keyuse"
	"infrado.cloud/headscale-operator/test/process"
)

func TestQuantiles(t *testing.T) {
	for name, test := range map[string]struct {
		values               []time.Duration
		median, percentile90 time.Duration
	}{
		"one":      {[]time.Duration{7}, 7, 7},
		"two":      {[]time.Duration{3, 1}, 1, 3},
		"three":    {[]time.Duration{9, 1, 2}, 2, 9},
		"ten":      {[]time.Duration{100, 90, 80, 70, 60, 50, 40, 30, 20, 10}, 50, 90},
		"eleven":   {[]time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 6, 10},
		"outliers": {[]time.Duration{1, 1, 1, 1, 1, 1, 1, 1, 1, 1000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 900}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := slices.Clone(test.values)
			g.Expect(quantile(0.5, test.values)).To(Equal(test.median))
			g.Expect(quantile(0.9, test.values)).To(Equal(test.percentile90))
			g.Expect(test.values).To(Equal(before), "the order of the measurements stays")
		})
	}
}

func TestUsageSinceAnEarlierLook(t *testing.T) {
	earlier := usage{time.Minute, audit.Counts{All: 2}, process.Usage{Processor: time.Second, Resident: 10}}
	later := usage{3 * time.Minute, audit.Counts{All: 5, Writes: 1}, process.Usage{Processor: 7 * time.Second, Resident: 20}}
	g := NewWithT(t)
	g.Expect(later.since(earlier)).To(Equal(usage{2 * time.Minute, audit.Counts{All: 3, Writes: 1}, process.Usage{Processor: 6 * time.Second, Resident: 20}}))
	g.Expect(later.since(earlier).percent()).To(Equal(5.0))
}

func TestFind(t *testing.T) {
	g := NewWithT(t)
	g.Expect(find("a 1\nb 2\n", `(?m)^b (\d+)$`)).To(Equal("2"))
	g.Expect(find("b none", `b (\d+)`)).To(Equal("unknown"))
}

func TestTheMachineIsNamed(t *testing.T) {
	NewWithT(t).Expect(thisMachine(t.Context())).To(
		MatchRegexp(`^Measured on \d{4}-\d\d-\d\d, commit .+, .+, \d+ cores, load average [0-9.]+ before, go1\..+\.$`))
}

// costOf are made-up figures of the operator.
func costOf(size int, memory float64) *operatorBench {
	return &operatorBench{
		size: size, made: time.Duration(size) * 20 * time.Millisecond,
		remade: []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, baseline: []time.Duration{time.Second, 500 * time.Millisecond, 2 * time.Second},
		ratios: []float64{1, 4, 1.5},
		making: usage{
			Counts: audit.Counts{All: 16 * size, Writes: 9 * size, Created: 7 * size},
			Usage:  process.Usage{Processor: time.Duration(size) * 10 * time.Millisecond},
		},
		changing: []time.Duration{30 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond},
		idle:     usage{Usage: process.Usage{Proportional: 30}},
		resting:  usage{took: time.Minute, Usage: process.Usage{Processor: 600 * time.Millisecond, Proportional: memory}},
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
		sidecarRows(usage{
			took: time.Minute + time.Millisecond, Counts: audit.Counts{All: 1},
			Usage: process.Usage{Processor: 6 * time.Millisecond, Proportional: 21.95, Resident: 40, Files: 12},
		}, "16"),
		firstKeyRows(ms(70), ms(100, 300, 200), ms(400), ms(90)),
		rotationRows("gRPC, Headscale "+headscaleVersion, ms(80, 100), ms(5, 201), keyuse.Tally{Calls: 90, Refusals: 2, Streak: 1}),
		rotationRows("HTTP, contract server for v0.30", ms(1), ms(1), keyuse.Tally{}),
		operatorRows([]*operatorBench{costOf(1, 40), costOf(20, 41), costOf(100, 51), costOf(500, 59)}),
		preflightRows(v1beta1.PreflightNever, ms(20), 400), preflightRows(v1beta1.PreflightWhenPossible, ms(900), 900),
		tailnetFigures("HeadscaleUser", ms(90)).rows(0.3, 70), tailnetFigures("HeadscalePreAuthKey", ms(410)).rows(0.4, 90),
		policyRows(ms(100), ms(290), restFigures{usage: usage{took: 45 * time.Second, Counts: audit.Counts{All: 1}}, calls: 3}),
		compareRows("HeadscaleUser", 20*time.Second, 8*time.Second),
		compareRows("HeadscalePreAuthKey", 20*time.Second, 16*time.Second),
		(&backupBench{
			lost: ms(900, 2100, 300), rest: usage{took: time.Minute, Usage: process.Usage{Processor: 60 * time.Millisecond, Proportional: 34}}, requests: 8,
			restored: map[int][]time.Duration{1: ms(3000), 100: ms(5000)}, copied: map[int][]time.Duration{1: ms(2000), 100: ms(2500)},
		}).figures(),
	)
}

// tailnetFigures are made-up figures of a kind.
func tailnetFigures(kind string, took []time.Duration) kindFigures {
	return kindFigures{
		kind: kind, many: 1000, took: took, made: 20 * time.Second, calls: 1010, manager: 22.1,
		making: usage{Counts: audit.Counts{All: 4000, Writes: 3000}},
		rest:   restFigures{usage{took: 150 * time.Second, Usage: process.Usage{Proportional: 69}}, 5},
	}
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
		"| gRPC, Headscale v0.29.3: new key after it was due, median |  | 0.080 s |  |",
		"| gRPC, Headscale v0.29.3: old key refused after the Secret's change, 90 % | ≤ 0.200 s | 0.201 s | no |",
		"| gRPC, Headscale v0.29.3: a consumer's refused calls |  | 2 of 90 |  |",
		"| operator's memory (PSS) with 100 Headscales | ≤ 50.0 MiB | 51.0 MiB | no |",
		"| 100 StatefulSets exist, the least possible, after, median |  | 1.00 s |  |",
		"| change until changed StatefulSet with 100 Headscales, median |  | 20 ms |  |",
		"| operator's processor at rest with 100 Headscales |  | 1.00 % |  |",
		"| 100 StatefulSets exist after, median |  | 2.00 s |  |",
		"| 100 StatefulSets exist, time as against the least possible, median | ≤ 2.00 | 1.50 | yes |",
		"| writes for a new Headscale besides one for each object | ≤ 2.0 | 2.0 | yes |",
		"| requests, for each of 500 as against each of 20 | ≤ 1.20 | 1.00 | yes |",
		"| time until its StatefulSet exists, for each of 500 as against each of 20 | ≤ 1.20 | 1.00 | yes |",
		"| HeadscaleUser, applied until Ready, median | ≤ 0.30 s | 0.09 s | yes |",
		"| HeadscalePreAuthKey, applied until Ready, median | ≤ 0.40 s | 0.41 s | no |",
		"| requests to Headscale for each HeadscaleUser |  | 1.01 |  |",
		"| requests to Headscale in 30 s at rest, with all HeadscaleUsers |  | 1.0 |  |",
		"| HeadscalePolicy, changed until in force, beyond that, median | ≤ 0.200 s | 0.190 s | yes |",
		"| requests to Headscale in 30 s at rest, with the HeadscalePolicy, too |  | 2.0 |  |",
		"| requests to Kubernetes at rest, with the HeadscalePolicy, too | ≤ 0 | 1 | no |",
		"| time with the operator as against that, HeadscaleUsers | ≤ 2.00 | 2.50 | no |",
		"| backup at rest, requests to the bucket an hour, by those in 1m0s |  | 480 |  |",
		"| backup, the oldest that is lost with a volume, longest | ≤ 2.00 s | 2.10 s | no |",
		"| backup, database of 100 MB, empty volume until Ready, median |  | 5.0 s |  |",
		"| memory for each more, for each of 500 as against each of 20 | ≤ 1.20 | 0.38 | yes |",
	))
}

func TestOneSizeIsNotComparedWithItself(t *testing.T) {
	for _, all := range [][]*operatorBench{{costOf(20, 41)}, {costOf(1, 40)}, {costOf(1, 40), costOf(20, 41)}} {
		NewWithT(t).Expect(table(operatorRows(all))).NotTo(ContainSubstring("as against"))
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
