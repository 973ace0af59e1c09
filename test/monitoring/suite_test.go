package monitoring_test

import (
	"context"
	"os"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/monitoring/stage"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// shortLived is a Headscale whose key is replaced every few seconds.
const shortLived = `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: headscale, namespace: vpn}
spec:
  version: ` + serverbuild.DefaultHeadscale + `
  config: {server_url: "http://headscale.example.com"}
  api_key: {expiration: 1m, rotation_buffer: 57s}
`

func TestMonitoring(t *testing.T) {
	RegisterFailHandler(Fail)
	// A machine that builds other things at the same time takes minutes.
	SetDefaultEventuallyTimeout(2 * time.Minute)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "What the real programs tell Prometheus")
}

// exposed maps the name of every series that the programs have to its labels.
var exposed = map[string][]string{}

// ofOperator is what the operator told, which leads.
var ofOperator map[string]*dto.MetricFamily

var _ = BeforeSuite(func(ctx SpecContext) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		Fail("these tests need a kube-apiserver: run `make test`, which builds one and sets KUBEBUILDER_ASSETS")
	}
	root, err := serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	servers, err := serverbuild.Find(serverbuild.Options{Root: root, Headscale: []string{serverbuild.DefaultHeadscale}})
	Expect(err).NotTo(HaveOccurred())
	s, err := stage.Start(ctx, root, servers, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(s.Close)
	_, err = s.Add(ctx, shortLived)
	Expect(err).NotTo(HaveOccurred())

	By("waiting for a rotation, after which there is nothing that is not told")
	Eventually(func(g Gomega) {
		operator := scrape(ctx, g, s.Operator())
		g.Expect(operator).To(HaveKey("headscale_operator_apikey_next_rotation_timestamp_seconds"))
		managers, headscales := s.Managers(), s.Headscales()
		g.Expect(managers).To(HaveLen(1))
		g.Expect(headscales).To(HaveLen(1))
		manager := scrape(ctx, g, managers[0])
		g.Expect(manager).To(HaveKey("headscale_apikey_last_success_timestamp_seconds"))
		g.Expect(manager["headscale_apikey_keys_revoked_total"].GetMetric()[0].GetCounter().GetValue()).To(BeNumerically(">=", 1))
		for _, families := range []map[string]*dto.MetricFamily{operator, manager, scrape(ctx, g, headscales[0])} {
			note(families)
		}
		ofOperator = operator
	}).WithContext(ctx).Should(Succeed())
})

// scrape reads what a target tells.
func scrape(ctx context.Context, g Gomega, target stage.Target) map[string]*dto.MetricFamily {
	body, err := target.Read(ctx)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = body.Close() }()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(body)
	g.Expect(err).NotTo(HaveOccurred())
	return families
}

// note adds the series of families to those that are exposed.
func note(families map[string]*dto.MetricFamily) {
	for name, family := range families {
		var labels []string
		for _, pair := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, pair.GetName())
		}
		exposed[name] = labels
		if family.GetType() == dto.MetricType_HISTOGRAM {
			exposed[name+"_bucket"] = append(labels, "le")
			exposed[name+"_sum"], exposed[name+"_count"] = labels, labels
		}
	}
}
