package monitoring_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// shortLived is a Headscale whose key is replaced every few seconds.
const shortLived = `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: headscale, namespace: vpn}
spec:
  version: ` + serverbuild.DefaultHeadscale + `
  config: {server_url: "http://headscale.example.com", policy: {mode: database}}
  api_key: {expiration: 1m, rotation_buffer: 57s}
`

// storage is where the database of that Headscale is replicated to, which needs a real S3 server:
// Litestream counts nothing else that it writes to.
const storage = `{type: s3, bucket: backups, region: us-east-1, endpoint: "http://%s"}`

// startStorage starts the S3 server, and returns the manifests of its credentials and of a backup to it.
func startStorage(guard *process.Guard) (program string, credentials *corev1.Secret, backup map[string]any) {
	GinkgoHelper()
	root, err := serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	found, err := serverbuild.Find(serverbuild.Options{Root: root, Backup: true})
	Expect(err).NotTo(HaveOccurred())
	address, err := env.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	dir, err := os.MkdirTemp(guard.Dir(), "s3-")
	Expect(err).NotTo(HaveOccurred())
	for _, part := range []string{"objects/backups", "metadata"} {
		Expect(os.MkdirAll(filepath.Join(dir, part), 0o700)).To(Succeed())
	}
	server, err := process.Start(process.Command{
		Name: "versitygw", Path: filepath.Join(found.Backup["versitygw"], "versitygw"), Dir: dir, Output: GinkgoWriter, Guard: guard,
		Args: []string{"--quiet", "--port", address, "--access", "monitoring", "--secret", "monitoring-secret", "--region", "us-east-1",
			"posix", "--sidecar", filepath.Join(dir, "metadata"), filepath.Join(dir, "objects")},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { server.Kill() })
	credentials = &corev1.Secret{StringData: map[string]string{"AWS_ACCESS_KEY_ID": "monitoring", "AWS_SECRET_ACCESS_KEY": "monitoring-secret"}}
	credentials.Namespace, credentials.Name = "vpn", "backup-credentials"
	replica := map[string]any{}
	Expect(yaml.Unmarshal(fmt.Appendf(nil, storage, address), &replica)).To(Succeed())
	return filepath.Join(found.Backup["litestream"], "litestream"), credentials, map[string]any{"verify_interval": "10s", "replica": replica, "credentials": map[string]any{"name": credentials.Name}}
}

// within are objects within that Headscale, one of each kind.
var within = []string{`
apiVersion: headscale.infrado.cloud/v1beta1
kind: HeadscaleUser
metadata: {name: alice, namespace: vpn}
spec: {headscaleRef: headscale, username: alice}
`, `
apiVersion: headscale.infrado.cloud/v1beta1
kind: HeadscalePreAuthKey
metadata: {name: web, namespace: vpn}
spec: {headscaleRef: headscale, headscaleUserRef: alice}
`, `
apiVersion: headscale.infrado.cloud/v1beta1
kind: HeadscalePolicy
metadata: {name: all, namespace: vpn}
spec: {headscaleRef: headscale, policy: {acls: [{action: accept, src: ["*"], dst: ["*:*"]}]}}
`}

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
	world, err := env.NewWorld("hs-mon-", GinkgoWriter, serverbuild.DefaultHeadscale)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(world.Close)
	Expect(world.Build(ctx, GinkgoWriter)).To(Succeed())
	Expect(world.StartPlane(nil)).To(Succeed())
	metrics, err := env.FreeAddress() // right before it is used, or somebody else has it
	Expect(err).NotTo(HaveOccurred())
	Expect(world.StartOperator(ctx, "--metrics-bind-address="+metrics, "--metrics-secure=false")).To(Succeed())
	object := &unstructured.Unstructured{}
	Expect(yaml.Unmarshal([]byte(shortLived), &object.Object)).To(Succeed())
	Expect(world.Admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: object.GetNamespace()}})).To(Succeed())
	litestream, credentials, backup := startStorage(world.Guard)
	Expect(world.Admin.Create(ctx, credentials)).To(Succeed())
	Expect(unstructured.SetNestedMap(object.Object, backup, "spec", "backup")).To(Succeed())
	Expect(world.Admin.Create(ctx, object)).To(Succeed())
	for _, manifest := range within {
		one := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal([]byte(manifest), &one.Object)).To(Succeed())
		Expect(world.Admin.Create(ctx, one)).To(Succeed())
	}
	programs := world.Programs()
	programs[v1beta1.DefaultBackupImage] = litestream
	pod, stop := podrunner.Start(podrunner.Options{
		Client: world.Admin, Config: world.Plane.Config(), Guard: world.Guard, StatefulSet: client.ObjectKeyFromObject(object), Programs: programs, Output: GinkgoWriter,
	})
	DeferCleanup(stop)

	By("waiting for a rotation, after which there is nothing that is not told")
	Eventually(func(g Gomega) {
		operator := scrape(ctx, g, metrics)
		for _, last := range []string{"apikey_next_rotation", "policy_applied", "preauthkey_expiration", "backup_last_sync", "backup_verified"} {
			g.Expect(operator).To(HaveKey("headscale_operator_" + last + "_timestamp_seconds"))
		}
		manager := scrape(ctx, g, pod.Address("apikey-manager", "apikey-metrics"))
		g.Expect(manager).To(HaveKey("headscale_apikey_last_success_timestamp_seconds"))
		g.Expect(manager["headscale_apikey_keys_revoked_total"].GetMetric()[0].GetCounter().GetValue()).To(BeNumerically(">=", 1))
		for _, families := range []map[string]*dto.MetricFamily{operator, manager, scrape(ctx, g, pod.Address("headscale", "metrics"))} {
			note(families)
		}
		ofOperator = operator
	}).WithContext(ctx).Should(Succeed())
})

// scrape reads what is told at an address, host:port.
func scrape(ctx context.Context, g Gomega, address string) map[string]*dto.MetricFamily {
	g.Expect(address).NotTo(BeEmpty())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	g.Expect(err).NotTo(HaveOccurred())
	response, err := http.DefaultClient.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(response.Body)
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
