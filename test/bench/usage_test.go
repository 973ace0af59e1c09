package main

import (
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestMemoryInARollup(t *testing.T) {
	const rollup = "00400000-7ffd [rollup]\nRss:   43008 kB\nPss:   21504 kB\nPss_Dirty:  1024 kB\n"
	g := NewWithT(t)
	g.Expect(parseRollup(rollup, "Pss")).To(Equal(21.0))
	g.Expect(parseRollup(rollup, "Rss")).To(Equal(42.0))
	_, err := parseRollup(rollup, "Swap")
	g.Expect(err).To(MatchError(ContainSubstring("Swap")))
}

func TestProcessorTimeInAState(t *testing.T) {
	g := NewWithT(t)
	g.Expect(parseStat("7 (a b) c) ) S 1 7 7 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 9 0 1 1 1\n")).To(Equal(1750 * time.Millisecond))
	for _, text := range []string{"", "7 (a) S 1 2", "7 (a) S 1 7 7 0 -1 4194560 100 0 0 0 x 25 0 0 20"} {
		_, err := parseStat(text)
		g.Expect(err).To(HaveOccurred())
	}
}

func TestThisProcessUsesSomething(t *testing.T) {
	g := NewWithT(t)
	g.Expect(memoryOf(os.Getpid(), "Rss")).To(BeNumerically(">=", memoryOf(os.Getpid(), "Pss")))
	g.Expect(processorTime(os.Getpid())).To(BeNumerically(">=", 0))
}
