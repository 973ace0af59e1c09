package main

import (
	"encoding/json"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestText(t *testing.T) {
	g := NewWithT(t)
	for _, test := range []struct {
		value      float64
		unit, want string
	}{
		{0, "none", "0"}, {3, "none", "3"}, {0.25, "none", "0.25"}, {0.0015, "none", "0.0015"}, {12.34, "none", "12.3"}, {1234.5, "none", "1234"},
		{0, "s", "0 s"}, {0.005, "s", "5 ms"}, {90, "s", "1.5 min"}, {-30, "s", "-30 s"}, {7200, "s", "2 hours"}, {86400 * 80, "s", "80 days"},
		{50 << 20, "bytes", "50 MiB"}, {1, "bool_yes_no", "Yes"}, {0, "bool_yes_no", "No"}, {1.5, "ops", "1.5 ops/s"}, {2, "cpm", "2 /min"},
	} {
		g.Expect(text(test.value, test.unit)).To(Equal(test.want), "%v %s", test.value, test.unit)
	}
}

func TestTicks(t *testing.T) {
	g := NewWithT(t)
	g.Expect(ticks(0, 1, "none", false)).To(HaveLen(6))
	g.Expect(ticks(0, 1, "bool_yes_no", true)).To(Equal([]float64{0, 1}))
	g.Expect(ticks(-70, 620, "s", false)).To(Equal([]float64{0, 300, 600}))
	g.Expect(ticks(0, 100000, "none", false)).NotTo(BeEmpty())
}

func TestNumbers(t *testing.T) {
	g := NewWithT(t)
	p := &panel{}
	g.Expect(json.Unmarshal([]byte(`{"fieldConfig": {"defaults": {"thresholds": {"steps": [{"color": "green"}, {"color": "red", "value": 1}]}}}}`), p)).To(Succeed())
	g.Expect(p.number("", "0", 0)).To(BeEquivalentTo(`<div class="stat" style="color:` + colors["green"] + `">0</div>`))
	g.Expect(p.number("a<b", "1", 1)).To(BeEquivalentTo(`<div class="stat" style="color:` + colors["red"] + `"><div class="name">a&lt;b</div>1</div>`))
}

func TestVariablesAndLegends(t *testing.T) {
	g := NewWithT(t)
	g.Expect(withVariables(`a{pod=~"($headscale)-0"}[$__rate_interval]`, 10*time.Second)).To(Equal(`a{pod=~"(.*)-0"}[20s]`))
	g.Expect(withVariables(`[$__rate_interval]`, time.Minute)).To(Equal(`[1m5s]`))
	g.Expect(legend("{{namespace}}/{{name}}", map[string]string{"namespace": "a", "name": "b", "x": "c"})).To(Equal("a/b"))
}
