package integration_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/internal/operator"
	"infrado.cloud/headscale-operator/test/env"
)

// metricsReader is the ClusterRole of config/default for who may read the operator's metrics.
const metricsReader = "headscale-operator-metrics-reader"

// startStandby starts a second operator, with the rights of the installation, for one spec. It
// returns the address of its metrics.
func startStandby(ctx context.Context, args ...string) string {
	GinkgoHelper()
	// The operator of all specs has no Lease to wait for.
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "headscale-operator-system", Name: operator.LeaderElectionID},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("the one that works"), LeaseDurationSeconds: ptr.To[int32](3600)},
	}
	Expect(admin.Create(ctx, lease)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, lease)).To(Succeed()) })
	address, err := env.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	standby, err := world.RunOperator(ctx, binaries.Operator, append([]string{"--metrics-bind-address=" + address}, args...)...)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(standby.Stop)
	return address
}

// scrape gets a page with a token, which may be "", and verifies the server's certificate by those
// of authorities, if there are any. It returns the status and the page.
func scrape(ctx context.Context, g Gomega, url, token string, authorities *x509.CertPool) (int, string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	g.Expect(err).NotTo(HaveOccurred())
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		RootCAs: authorities, InsecureSkipVerify: authorities == nil, ServerName: "127.0.0.1", // as in the certificate
	}}}
	response, err := client.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return response.StatusCode, string(page)
}

// newReader makes a ServiceAccount, which may read the operator's metrics or not, and returns a
// token of it.
func newReader(ctx context.Context, may bool) string {
	GinkgoHelper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(ctx), Name: "prometheus"}}
	Expect(admin.Create(ctx, account)).To(Succeed())
	if may {
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{GenerateName: metricsReader + "-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: metricsReader},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: account.Namespace, Name: account.Name}},
		}
		Expect(admin.Create(ctx, binding)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, binding)).To(Succeed()) })
	}
	request := &authenticationv1.TokenRequest{}
	Expect(admin.SubResource("token").Create(ctx, account, request)).To(Succeed())
	return request.Status.Token
}

// writeCertificate writes a new self-signed certificate for the address 127.0.0.1, and returns who
// verifies it.
func writeCertificate(dir string) *x509.CertPool {
	GinkgoHelper()
	certificate, key, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	Expect(err).NotTo(HaveOccurred())
	for name, content := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
		Expect(os.WriteFile(filepath.Join(dir, name), content, 0o600)).To(Succeed())
	}
	pool := x509.NewCertPool()
	Expect(pool.AppendCertsFromPEM(certificate)).To(BeTrue())
	return pool
}

var _ = Describe("The operator's metrics", func() {
	It("are for those who may read them, by default", func(ctx SpecContext) {
		url := "https://" + startStandby(ctx) + "/metrics"
		for _, test := range []struct {
			token  string
			status int
			page   string
		}{
			{"", http.StatusUnauthorized, "no bearer token"},
			{"nonsense", http.StatusUnauthorized, "does not accept this bearer token"},
			{newReader(ctx, false), http.StatusForbidden, "prometheus may not get /metrics"},
			{newReader(ctx, true), http.StatusOK, "headscale_operator_build_info{"},
		} {
			Eventually(func(g Gomega) {
				status, page := scrape(ctx, g, url, test.token, nil)
				g.Expect(status).To(Equal(test.status), page)
				g.Expect(page).To(ContainSubstring(test.page))
			}).WithContext(ctx).Should(Succeed())
		}
	})

	It("have a certificate of one's own, which is renewed while the operator runs", func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		first := writeCertificate(dir)
		url, token := "https://"+startStandby(ctx, "--metrics-cert-path="+dir)+"/metrics", newReader(ctx, true)
		served := func(by *x509.CertPool) func(Gomega) {
			return func(g Gomega) {
				status, page := scrape(ctx, g, url, token, by)
				g.Expect(status).To(Equal(http.StatusOK), page)
			}
		}
		Eventually(served(first)).WithContext(ctx).Should(Succeed())
		Eventually(served(writeCertificate(dir))).WithContext(ctx).Should(Succeed())
	})

	It("are plain HTTP, for everybody, by choice", func(ctx SpecContext) {
		url := "http://" + startStandby(ctx, "--metrics-secure=false") + "/metrics"
		Eventually(func(g Gomega) {
			status, page := scrape(ctx, g, url, "", nil)
			g.Expect(status).To(Equal(http.StatusOK))
			g.Expect(page).To(ContainSubstring("headscale_operator_build_info{"))
		}).WithContext(ctx).Should(Succeed())
	})
})
