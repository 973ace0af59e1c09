package main

import (
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
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
			before := append([]time.Duration{}, test.values...)
			g.Expect(median(test.values)).To(Equal(test.median))
			g.Expect(percentile90(test.values)).To(Equal(test.percentile90))
			g.Expect(test.values).To(Equal(before), "the order of the measurements stays")
		})
	}
	g := NewWithT(t)
	g.Expect(median([]time.Duration{time.Second, 2 * time.Second})).To(Equal(1500 * time.Millisecond))
}

func TestTableEscapesWhatDividesCells(t *testing.T) {
	g := NewWithT(t)
	g.Expect(table("a | b", [][]string{{"1", "x|y"}, {"2", ""}}, slices.Clone[[]string])).
		To(Equal("| a | b |\n| --- | --- |\n| 1 | x\\|y |\n| 2 |  |"))
}

func TestTablesGoBetweenTheirMarks(t *testing.T) {
	const document = "Before.\n<!-- table: a -->\nold\n<!-- end -->\nAfter.\n<!-- table: b -->\n<!-- end -->\n"
	g := NewWithT(t)
	filled, err := fillIn(document, "a", "new")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filled).To(Equal("Before.\n<!-- table: a -->\nnew\n<!-- end -->\nAfter.\n<!-- table: b -->\n<!-- end -->\n"))
	filled, err = fillIn(filled, "b", "first")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filled).To(HaveSuffix("After.\n<!-- table: b -->\nfirst\n<!-- end -->\n"))
	_, err = fillIn(document, "c", "new")
	g.Expect(err).To(MatchError(ContainSubstring(`no place for the table "c"`)))
}
