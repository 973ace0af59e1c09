package monitoring_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/pages"
)

// targetLabels are what Prometheus gives every series of a target in a cluster.
var targetLabels = []string{"namespace", "pod", "container", "service", "endpoint", "job", "instance"}

// ofPrometheus are series of Prometheus itself, with the labels that we ask for.
var ofPrometheus = map[string][]string{"ALERTS": {"alertname", "alertstate"}}

// subject is what a PromQL expression is about, as bin/selectors prints it.
type subject struct {
	Selectors []struct {
		Metric string   `json:"metric"`
		Labels []string `json:"labels"`
	} `json:"selectors"`
	Labels []string `json:"labels"`
	Made   []string `json:"made"`
}

// dashboard is what is looked at here of Grafana's format.
type dashboard struct {
	Panels []struct {
		Title   string `json:"title"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
	Templating struct {
		List []struct {
			Name  string `json:"name"`
			Query any    `json:"query"`
		} `json:"list"`
	} `json:"templating"`
}

// labelValues is how a variable of the dashboard asks for the values of a label.
var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

var _ = Describe("The queries", func() {
	It("of the alerts are about series that there are", func(ctx SpecContext) {
		var expressions []string
		for _, alert := range alerts(NewGomega(Fail)) {
			expressions = append(expressions, alert.Expr)
			expressions = append(expressions, queriesIn(alert.Annotations["description"])...)
		}
		Expect(len(expressions)).To(BeNumerically(">", 8))
		check(ctx, expressions)
	})

	It("of the alert about operators without a leader has the name that the operator's election goes by", func() {
		leaders := ofOperator["leader_election_master_status"].GetMetric()
		Expect(leaders).To(HaveLen(1))
		Expect(leaders[0].GetGauge().GetValue()).To(Equal(1.0))
		Expect(leaders[0].GetLabel()).To(HaveLen(1))
		Expect(alerts(NewGomega(Fail))["HeadscaleOperatorDown"].Expr).To(
			ContainSubstring(`leader_election_master_status{name="` + leaders[0].GetLabel()[0].GetValue() + `"}`))
	})

	It("of the dashboard are about series that there are", func(ctx SpecContext) {
		expressions := dashboardQueries(NewGomega(Fail))
		Expect(len(expressions)).To(BeNumerically(">", 25))
		check(ctx, expressions)
	})

	It("of the pages are about series that there are", func(ctx SpecContext) {
		expressions := pageQueries(NewGomega(Fail))
		Expect(expressions).NotTo(BeEmpty())
		check(ctx, expressions)
	})
})

// pageQueries are the expressions in the documentation, one to a line.
func pageQueries(g Gomega) []string {
	all, err := pages.ReadAll(repository)
	g.Expect(err).NotTo(HaveOccurred())
	var expressions []string
	for _, page := range all {
		for _, block := range page.Blocks {
			if block.Language == "promql" {
				expressions = slices.AppendSeq(expressions, strings.SplitSeq(strings.TrimSpace(block.Text), "\n"))
			}
		}
	}
	return expressions
}

// queriesIn are the expressions that a description asks for.
func queriesIn(description string) []string {
	var found []string
	for _, match := range regexp.MustCompile(`printf "([^"]+)" [^|]+\| query`).FindAllStringSubmatch(description, -1) {
		found = append(found, strings.ReplaceAll(match[1], "%s", "x"))
	}
	return found
}

// dashboardQueries are the expressions of the dashboard, with its variables filled in.
func dashboardQueries(g Gomega) []string {
	board := &dashboard{}
	g.Expect(json.Unmarshal(read(g, "charts", "headscale-operator", "files", "dashboard.json"), board)).To(Succeed())
	var expressions []string
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	for _, variable := range board.Templating.List {
		query, ok := variable.Query.(map[string]any)
		if !ok {
			continue
		}
		text, _ := query["query"].(string)
		match := labelValues.FindStringSubmatch(text)
		g.Expect(match).NotTo(BeNil(), text)
		expressions = append(expressions, "group by ("+match[2]+") ("+match[1]+")")
	}
	for i := range expressions {
		expressions[i] = strings.NewReplacer("$__rate_interval", "5m", "$namespace", "vpn", "$headscale", "headscale").Replace(expressions[i])
		g.Expect(expressions[i]).NotTo(ContainSubstring("$"), "a variable that the dashboard does not have")
	}
	return expressions
}

// check fails for an expression that cannot be parsed, and for one about a series or a
// label that no program has.
func check(ctx context.Context, expressions []string) {
	GinkgoHelper()
	for i, about := range subjects(ctx, expressions) {
		known := slices.Concat(targetLabels, about.Made)
		for _, selector := range about.Selectors {
			labels, there := exposed[selector.Metric]
			if !there {
				labels, there = ofPrometheus[selector.Metric]
			}
			Expect(there).To(BeTrue(), "no program has the series %s of: %s", selector.Metric, expressions[i])
			for _, label := range selector.Labels {
				Expect(slices.Concat(labels, targetLabels)).To(ContainElement(label), "a label of %s in: %s", selector.Metric, expressions[i])
			}
			known = append(known, labels...)
		}
		Expect(about.Selectors).NotTo(BeEmpty(), expressions[i])
		for _, label := range about.Labels {
			Expect(known).To(ContainElement(label), "a label to group or to match by in: %s", expressions[i])
		}
	}
}

// subjects asks bin/selectors what expressions are about.
func subjects(ctx context.Context, expressions []string) []subject {
	GinkgoHelper()
	program := filepath.Join(repository, "bin", "selectors")
	if _, err := os.Stat(program); err != nil {
		Skip("bin/selectors is not there; `make test-alerts` builds it and passes this test")
	}
	input, err := json.Marshal(expressions)
	Expect(err).NotTo(HaveOccurred())
	command := exec.CommandContext(ctx, program)
	var output, complaints bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(input), &output, &complaints
	Expect(command.Run()).To(Succeed(), complaints.String())
	var found []subject
	Expect(json.Unmarshal(output.Bytes(), &found)).To(Succeed())
	Expect(found).To(HaveLen(len(expressions)))
	return found
}
