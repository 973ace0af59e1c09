package main

import (
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/reliability/observation"
)

func TestObservationsOfOneFailureAreOneRow(t *testing.T) {
	g := NewWithT(t)
	texts := tables([]observation.Observation{
		{Section: "killed", Failure: "SIGKILL", Produced: "by itself", Headscale: "v0.30 (contract server)", Times: 1, Minted: 2, Wanted: 1, Left: 1, Heal: []float64{0.1}, Calls: 3, Refusals: 1, Streak: 1},
		{Section: "killed", Failure: "SIGKILL", Produced: "by itself", Headscale: "v0.29.3", Times: 2, Minted: 2, Wanted: 2, Left: 1, Heal: []float64{0.3, 0.2}, Calls: 4, Note: "a|b"},
	}, []observation.Latency{{Latency: "floor", Headscale: "v0.29.3", Milliseconds: []float64{3, 1, 2, 10}}})
	g.Expect(texts["killed"]).To(HaveSuffix("\n| SIGKILL | by itself | v0.29.3, v0.30 | 3 | 4 of 3 | 1 | 0.20 s / 0.30 s | 1 of 7 (1) | a\\|b |"))
	g.Expect(texts[latencySection]).To(HaveSuffix("\n| v0.29.3 | floor | 4 | 2 ms | 10 ms |"))
}

func TestTablesGoBetweenTheirMarks(t *testing.T) {
	g := NewWithT(t)
	const document = "Before.\n<!-- table: a -->\nold\n<!-- end -->\nAfter.\n"
	filled, err := fillIn(document, map[string]string{"a": "new"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filled).To(Equal("Before.\n<!-- table: a -->\nnew\n<!-- end -->\nAfter.\n"))
	empty := "<!-- table: a -->\n<!-- end -->\n"
	filled, err = fillIn(empty+document[len("Before.\n"):], map[string]string{"a": "new"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filled).To(HavePrefix("<!-- table: a -->\nnew\n<!-- end -->\n"))
	_, err = fillIn(document, map[string]string{"a": "new", "b": "new"})
	g.Expect(err).To(MatchError(ContainSubstring(`no place for the table "b"`)))
	_, err = fillIn(document, nil)
	g.Expect(err).To(MatchError(ContainSubstring(`nothing was observed for the table "a"`)))
}
