package kube_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"infrado.cloud/headscale-operator/internal/kube/metrics"
)

// serve runs the metrics server for one spec, and returns where it listens once it does.
func serve(how metrics.Serving) func(Gomega) string {
	GinkgoHelper()
	how.Address = "127.0.0.1:0"
	certificate, err := how.Certificate()
	Expect(err).NotTo(HaveOccurred())
	httpClient, err := rest.HTTPClientFor(config)
	Expect(err).NotTo(HaveOccurred())
	server, err := metricsserver.NewServer(how.Options(certificate, time.Now), config, httpClient)
	Expect(err).NotTo(HaveOccurred())
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- server.Start(running) }()
	if certificate != nil {
		go func() { ended <- certificate.Start(running) }()
		DeferCleanup(func() { Eventually(ended).Should(Receive(BeNil())) })
	}
	DeferCleanup(func() {
		stop()
		Eventually(ended).Should(Receive(BeNil()))
	})
	return func(g Gomega) string {
		bound, ok := server.(interface{ GetBindAddr() string })
		g.Expect(ok).To(BeTrue())
		address := bound.GetBindAddr()
		g.Expect(address).NotTo(BeEmpty())
		return address
	}
}

// fetch reads a page.
func fetch(ctx context.Context, g Gomega, url string) (int, string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	g.Expect(err).NotTo(HaveOccurred())
	// Whose certificate it is is looked at elsewhere.
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	response, err := insecure.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return response.StatusCode, string(page)
}

// names are those of the certificate that is served at an address.
func names(ctx context.Context, g Gomega, address string) []string {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = connection.Close() }()
	secured, ok := connection.(*tls.Conn)
	g.Expect(ok).To(BeTrue())
	state := secured.ConnectionState()
	g.Expect(state.NegotiatedProtocol).NotTo(Equal("h2"))
	return state.PeerCertificates[0].DNSNames
}

// project puts a certificate for a name into a directory as the kubelet does: into a directory of
// its own, to which a link leads that is replaced.
func project(dir, name string) {
	GinkgoHelper()
	certificate, key, err := certutil.GenerateSelfSignedCertKey(name, nil, nil)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.Mkdir(filepath.Join(dir, name), 0o700)).To(Succeed())
	for file, content := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
		Expect(os.WriteFile(filepath.Join(dir, name, file), content, 0o600)).To(Succeed())
	}
	Expect(os.Symlink(name, filepath.Join(dir, "..data_tmp"))).To(Succeed())
	Expect(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))).To(Succeed())
	for _, file := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", file), filepath.Join(dir, file)); !errors.Is(err, os.ErrExist) {
			Expect(err).NotTo(HaveOccurred())
		}
	}
}

// brokenCollector fails at each scrape.
type brokenCollector struct{ desc *prometheus.Desc }

func (b brokenCollector) Describe(descs chan<- *prometheus.Desc) { descs <- b.desc }

func (b brokenCollector) Collect(found chan<- prometheus.Metric) {
	found <- prometheus.NewInvalidMetric(b.desc, errors.New("the list is away"))
}

var _ = Describe("The metrics server", func() {
	It("serves the rest where a collector fails, and counts it", func(ctx SpecContext) {
		broken := brokenCollector{prometheus.NewDesc("test_broken", "Fails.", nil, nil)}
		Expect(ctrlmetrics.Registry.Register(broken)).To(Succeed())
		DeferCleanup(func() { ctrlmetrics.Registry.Unregister(broken) })
		address := serve(metrics.Serving{})
		Eventually(func(g Gomega) {
			status, page := fetch(ctx, g, "http://"+address(g)+"/metrics")
			g.Expect(status).To(Equal(http.StatusOK), page)
			g.Expect(page).To(And(ContainSubstring("\nrest_client_requests_total{"), Not(ContainSubstring("test_broken")),
				MatchRegexp(`promhttp_metric_handler_errors_total{cause="gathering"} [1-9]`)))
		}).WithContext(ctx).Should(Succeed())
	})

	It("has a self-signed certificate by default, and lets nobody in without a token", func(ctx SpecContext) {
		address := serve(metrics.Serving{Secure: true})
		Eventually(func(g Gomega) {
			g.Expect(names(ctx, g, address(g))).To(ContainElement("localhost"))
			status, page := fetch(ctx, g, "https://"+address(g)+"/metrics")
			g.Expect(status).To(Equal(http.StatusUnauthorized))
			g.Expect(page).NotTo(ContainSubstring("rest_client_requests_total"))
		}).WithContext(ctx).Should(Succeed())
	})

	It("has the certificate that it is given, and a renewed one without a restart", func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		project(dir, "first.example.com")
		address := serve(metrics.Serving{Secure: true, CertPath: dir})
		Eventually(func(g Gomega) []string { return names(ctx, g, address(g)) }).WithContext(ctx).Should(ContainElement("first.example.com"))
		project(dir, "second.example.com")
		// The files are read every ten seconds, whatever a watch of links reports.
		Eventually(func(g Gomega) []string { return names(ctx, g, address(g)) }).WithContext(ctx).WithTimeout(40 * time.Second).
			Should(ContainElement("second.example.com"))
	})

	It("is refused where there is no certificate", func() {
		_, err := metrics.Serving{Secure: true, CertPath: GinkgoT().TempDir()}.Certificate()
		Expect(err).To(And(MatchError(os.ErrNotExist), MatchError(ContainSubstring("reading the certificate of the metrics: "))))
	})
})
