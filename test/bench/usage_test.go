package main

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"
)

func TestNumbersAreFoundInTexts(t *testing.T) {
	g := NewWithT(t)
	g.Expect(numberIn("a 1\nb 2\n", `(?m)^b (\d+)$`)).To(Equal(2.0))
	g.Expect(numberIn("1 2 3", `(\d) (\d)`)).To(Equal(3.0))
	g.Expect(attempt(func() { numberIn("b none", `b (\d+)`) })).To(MatchError(ContainSubstring(`there is no b (\d+) in "b none"`)))
}

func TestThisProcessUsesSomething(t *testing.T) {
	g := NewWithT(t)
	for range 1_000_000_000 { // half a second of a processor
	}
	g.Expect(memoryOf(os.Getpid(), "Pss")).To(BeNumerically(">", 1))
	g.Expect(memoryOf(os.Getpid(), "Rss")).To(BeNumerically(">=", memoryOf(os.Getpid(), "Pss")))
	g.Expect(processorTime(os.Getpid())).To(BeNumerically(">", 0))
}
