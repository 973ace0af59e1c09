package monitoring_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"
)

// ruleFile is a file of rules as Prometheus reads it.
type ruleFile struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

// rule is an alert.
type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// trials is a file of tests as promtool reads it; of each test, what is looked at here.
type trials struct {
	Tests []struct {
		AlertRuleTest []struct {
			Alertname string `json:"alertname"`
			ExpAlerts []any  `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	} `json:"tests"`
}

// repository is where the tests of this package find the other files.
var repository = filepath.Join("..", "..")

// read reads a file of the repository.
func read(g Gomega, path ...string) []byte {
	text, err := os.ReadFile(filepath.Join(append([]string{repository}, path...)...))
	g.Expect(err).NotTo(HaveOccurred())
	return text
}

// alerts are all there are, by name.
func alerts(g Gomega) map[string]rule {
	file := &ruleFile{}
	g.Expect(yaml.UnmarshalStrict(read(g, "config", "prometheus", "rules.yaml"), file)).To(Succeed())
	all := map[string]rule{}
	for _, group := range file.Groups {
		for _, alert := range group.Rules {
			g.Expect(all).NotTo(HaveKey(alert.Alert))
			all[alert.Alert] = alert
		}
	}
	g.Expect(len(all)).To(BeNumerically(">=", 5))
	return all
}

func TestAlertsAreComplete(t *testing.T) {
	g := NewWithT(t)
	for name, alert := range alerts(g) {
		g.Expect(alert.Expr).NotTo(BeEmpty(), name)
		g.Expect(alert.For).NotTo(BeEmpty(), name)
		g.Expect(alert.Labels).To(HaveKeyWithValue("severity", BeElementOf("critical", "warning")), name)
		g.Expect(alert.Annotations).To(And(
			HaveKeyWithValue("summary", Not(BeEmpty())),
			HaveKeyWithValue("description", Not(BeEmpty())),
			HaveKeyWithValue("runbook_url", "https://github.com/infrado/headscale-operator/blob/main/docs/runbooks/"+name+".md"),
		), name)
	}
}

func TestEveryAlertHasItsRunbook(t *testing.T) {
	g := NewWithT(t)
	all := alerts(g)
	for name, alert := range all {
		page := string(read(g, "docs", "runbooks", name+".md"))
		g.Expect(page).To(And(HavePrefix("# "+name+"\n"), ContainSubstring("\n*Severity: "+alert.Labels["severity"]+".*")), name)
		for _, heading := range []string{"Meaning", "Impact", "Diagnosis", "Mitigation"} {
			g.Expect(page).To(ContainSubstring("\n## "+heading+"\n"), name)
		}
		g.Expect(page).To(ContainSubstring("```sh\nkubectl "), "the page of %s has no command", name)
	}
	pages, err := filepath.Glob(filepath.Join(repository, "docs", "runbooks", "*.md"))
	g.Expect(err).NotTo(HaveOccurred())
	for _, page := range pages {
		g.Expect(all).To(HaveKey(strings.TrimSuffix(filepath.Base(page), ".md")), "a page without an alert")
	}
}

func TestEveryAlertIsTried(t *testing.T) {
	g := NewWithT(t)
	tried := &trials{}
	g.Expect(yaml.Unmarshal(read(g, "test", "monitoring", "testdata", "rules_test.yaml"), tried)).To(Succeed())
	fires, silent := map[string]int{}, map[string]int{}
	for _, test := range tried.Tests {
		for _, expected := range test.AlertRuleTest {
			if len(expected.ExpAlerts) > 0 {
				fires[expected.Alertname]++
			} else {
				silent[expected.Alertname]++
			}
		}
	}
	for name := range alerts(g) {
		g.Expect(fires[name]).To(BeNumerically(">=", 1), "no test in which %s fires", name)
		g.Expect(silent[name]).To(BeNumerically(">=", 1), "no test in which %s is silent", name)
	}
}

func TestTheResourceHasTheSameAlerts(t *testing.T) {
	g := NewWithT(t)
	resource := &struct {
		Spec ruleFile `json:"spec"`
	}{}
	g.Expect(yaml.Unmarshal(read(g, "config", "prometheus", "prometheusrule.yaml"), resource)).To(Succeed())
	plain := ruleFile{}
	g.Expect(yaml.UnmarshalStrict(read(g, "config", "prometheus", "rules.yaml"), &plain)).To(Succeed())
	g.Expect(resource.Spec).To(Equal(plain), "run hack/sync-chart")
}
