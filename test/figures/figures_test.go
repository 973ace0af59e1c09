package figures_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/figures"
)

func TestMedianAndPercentile(t *testing.T) {
	for name, test := range map[string]struct {
		values               []float64
		median, percentile90 float64
	}{
		"one":      {[]float64{7}, 7, 7},
		"two":      {[]float64{3, 1}, 2, 3},
		"three":    {[]float64{9, 1, 2}, 2, 9},
		"ten":      {[]float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 5.5, 9},
		"eleven":   {[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 6, 10},
		"outliers": {[]float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 900}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := append([]float64{}, test.values...)
			g.Expect(figures.Median(test.values)).To(Equal(test.median))
			g.Expect(figures.Percentile90(test.values)).To(Equal(test.percentile90))
			g.Expect(test.values).To(Equal(before), "the order of the measurements stays")
		})
	}
	g := NewWithT(t)
	g.Expect(figures.Median([]time.Duration{time.Second, 2 * time.Second})).To(Equal(1500 * time.Millisecond))
}

func TestTableEscapesWhatDividesCells(t *testing.T) {
	g := NewWithT(t)
	g.Expect(figures.Table([]string{"a", "b"}, [][]string{{"1", "x|y"}, {"2", ""}})).
		To(Equal("| a | b |\n| --- | --- |\n| 1 | x\\|y |\n| 2 |  |"))
}

func TestTablesGoBetweenTheirMarks(t *testing.T) {
	const document = "Before.\n<!-- table: a -->\nold\n<!-- end -->\nAfter.\n<!-- table: b -->\n<!-- end -->\n"
	g := NewWithT(t)
	filled, err := figures.FillIn(document, "a", "new")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filled).To(Equal("Before.\n<!-- table: a -->\nnew\n<!-- end -->\nAfter.\n<!-- table: b -->\n<!-- end -->\n"))
	filled, err = figures.FillIn(filled, "b", "first")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filled).To(HaveSuffix("After.\n<!-- table: b -->\nfirst\n<!-- end -->\n"))
	_, err = figures.FillIn(document, "c", "new")
	g.Expect(err).To(MatchError(ContainSubstring(`no place for the table "c"`)))
}
