package main

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func costOf(size int, memory float64) *operatorCost {
	return &operatorCost{
		size: size, made: time.Duration(size) * 20 * time.Millisecond, floor: time.Duration(size) * 10 * time.Millisecond,
		making:       counts{requests: 16 * size, created: 7 * size, status: size, events: size},
		touching:     counts{requests: size},
		busyMaking:   time.Duration(size) * 10 * time.Millisecond,
		changing:     []time.Duration{30 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond},
		memoryBefore: 30,
		resting: resting{
			rest: time.Minute, requests: counts{requests: 3}, busy: 600 * time.Millisecond,
			proportional: memory, anonymous: memory - 20,
		},
	}
}

func TestCostsAreShownForEachHeadscale(t *testing.T) {
	g := NewWithT(t)
	text := describeOperators([]*operatorCost{costOf(1, 40), costOf(20, 41), costOf(100, 51)}).text()
	g.Expect(text).To(ContainSubstring("\n| 20 | 0.40 s | 0.20 s | 16.0 | 7.0 | 2.0 (1.0, 1.0, 0.0) | 10 ms | 0 | 1.0 |\n"))
	g.Expect(text).To(ContainSubstring("\n| 1 | 20 ms | 30 ms | 0 and 3 | 1m0s | 1.00 % | 40.0 MiB | 20.0 MiB | 10240 KiB |\n"))
	g.Expect(text).To(ContainSubstring("\n| 100 | 20 ms | 30 ms | 0 and 3 | 1m0s | 1.00 % | 51.0 MiB | 31.0 MiB | 128 KiB |\n"))
	g.Expect(text).To(ContainSubstring("\n| for each Headscale | with 20 | with 100 | ratio |\n"))
	g.Expect(text).To(ContainSubstring("\n| memory for each more | 54 KiB | 128 KiB | 2.38 |\n"))
	g.Expect(text).To(ContainSubstring("\n| requests | 16.0 | 16.0 | 1.00 |\n"))
	g.Expect(text).To(ContainSubstring("\n| operator's memory (PSS) with 100 Headscales | ≤ 50.0 MiB | 51.0 MiB | no |\n"))
	g.Expect(text).To(ContainSubstring("\n| 100 StatefulSets exist, the least possible, after |  | 1.00 s |  |\n"))
	g.Expect(text).To(ContainSubstring("\n| 100 StatefulSets exist after | ≤ 1.50 s | 2.00 s | no |\n"))
	g.Expect(text).To(ContainSubstring("\n| writes for a new Headscale besides one for each object | ≤ 2.0 | 2.0 | yes |\n"))
}

func TestOneSizeIsNotComparedWithItself(t *testing.T) {
	g := NewWithT(t)
	for _, costs := range [][]*operatorCost{{costOf(20, 41)}, {costOf(1, 40), costOf(20, 41)}} {
		text := describeOperators(costs).text()
		g.Expect(text).NotTo(ContainSubstring("ratio"))
		g.Expect(text).NotTo(ContainSubstring("as against"))
	}
}
