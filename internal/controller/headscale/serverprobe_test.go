package headscale

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// unreachableIssuer is where no identity provider is.
const unreachableIssuer = "http://127.0.0.1:1"

// startHeadscale starts a real Headscale with more in its config.
func startHeadscale(ctx context.Context, release string, config map[string]any) *env.Headscale {
	GinkgoHelper()
	root, err := serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	servers, err := serverbuild.Find(serverbuild.Options{Root: root, Headscale: []string{release}})
	Expect(err).NotTo(HaveOccurred())
	guard, err := process.NewGuard("hs-ctl-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(guard.Close)
	headscale, err := env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: servers.Headscale[release], Guard: guard, Output: GinkgoWriter, Config: config})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(headscale.Kill)
	return headscale
}

// startIssuer starts as much of an identity provider as Headscale asks for at its start.
func startIssuer() string {
	issuer := httptest.NewUnstartedServer(nil)
	issuer.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer": %[1]q, "authorization_endpoint": "%[1]s/login", "token_endpoint": "%[1]s/token", "jwks_uri": "%[1]s/keys", "id_token_signing_alg_values_supported": ["RS256"]}`, issuer.URL)
	})
	issuer.Start()
	DeferCleanup(issuer.Close)
	return issuer.URL
}

// withIssuer is a config with an identity provider that need not be there.
func withIssuer(issuer string) map[string]any {
	return map[string]any{"oidc": map[string]any{"issuer": issuer, "client_id": "x", "client_secret": "y", "only_start_if_oidc_is_available": false}}
}

var _ = Describe("What a Headscale reports of itself", func() {
	DescribeTable("is read from the real one",
		func(ctx context.Context, release, version string) {
			client := newServerProber(ctx).client
			without := startHeadscale(ctx, release, withIssuer(unreachableIssuer)).URL()
			Eventually(probeServer).WithArguments(ctx, client, without).Should(Equal(serverInfo{answered: true, version: version, withoutOIDC: true}))
			with := startHeadscale(ctx, release, withIssuer(startIssuer())).URL()
			Eventually(probeServer).WithArguments(ctx, client, with).Should(Equal(serverInfo{answered: true, version: version}))
		},
		Entry(nil, "v0.26.1", ""),
		Entry(nil, "v0.27.1", "v0.27.1"),
		Entry(nil, "v0.28.0", "v0.28.0"),
		Entry(nil, "v0.29.3", "v0.29.3"),
	)

	DescribeTable("is not believed of what is none",
		func(ctx context.Context, handler http.HandlerFunc, expected serverInfo) {
			server := httptest.NewServer(handler)
			DeferCleanup(server.Close)
			Eventually(probeServer).WithArguments(ctx, newServerProber(ctx).client, server.URL).Should(Equal(expected))
		},
		Entry("a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, serverInfo{answered: true}),
		Entry("an endless page", func(w http.ResponseWriter, _ *http.Request) {
			for range 1 << 12 {
				_, _ = w.Write([]byte(strings.Repeat("x", 1<<10)))
			}
		}, serverInfo{answered: true, withoutOIDC: true}),
		Entry("an error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, serverInfo{answered: true}),
	)

	It("is not read where the headers are endless", func(ctx context.Context) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for i := range 1 << 10 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1<<10))
			}
		}))
		DeferCleanup(server.Close)
		Eventually(func() error {
			_, err := probeServer(ctx, newServerProber(ctx).client, server.URL)
			return err
		}).WithContext(ctx).Should(MatchError(ContainSubstring("server response headers exceeded")))
	})

	// run says that the real Headscale at an IP address is the container of the pod.
	run := func(ctx context.Context, namespace, container, ip string) {
		GinkgoHelper()
		runPod(ctx, namespace, "headscale", 1)
		state := running("headscale", true)
		state.ContainerID = container
		setPodStatus(ctx, podOf(rollOut(ctx, namespace, "headscale", 1)), corev1.PodStatus{PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, ContainerStatuses: []corev1.ContainerStatus{state}})
	}

	It("is in Ready and the status where an image holds another release, and guards upgrades", func(ctx context.Context) {
		address, err := url.Parse(startHeadscale(ctx, "v0.29.3", withIssuer(unreachableIssuer)).URL())
		Expect(err).NotTo(HaveOccurred())
		ip, port, err := net.SplitHostPort(address.Host)
		Expect(err).NotTo(HaveOccurred())
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata:
  name: headscale
spec:
  version: v0.28.0
  image: registry.example/headscale:stable
  api_key: {auto_manage: false}
  config:
    server_url: http://headscale.example.com
    listen_addr: 0.0.0.0:`+port+`
    oidc: {issuer: "`+unreachableIssuer+`", client_id: x, only_start_if_oidc_is_available: false}
`)).To(Succeed())
		run(ctx, o.namespace, "containerd://1", ip)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(And(
			be("True", v1beta1.ReasonReady, "Headscale in pod headscale-0 is v0.29.3, and spec.version is v0.28.0: set spec.version to the release of the image"),
			HaveField("Message", ContainSubstring("Headscale in pod headscale-0 runs without OIDC, because the issuer http://127.0.0.1:1 could not be reached when it started: "+
				"when it can be reached, restart Headscale with kubectl delete pod headscale-0")),
		))
		Expect(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)).Status.Version).To(Equal("v0.29.3"))
		o.touch(ctx, "headscale")
		Expect(ready(NewGomega(Fail))).To(be("True", v1beta1.ReasonReady, "is v0.29.3"), "the version that is applied is no downgrade")

		By("refusing another image that would take the database back")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {image: "registry.example/headscale:v0.28.0"}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonUpgradeRefused, "spec.version cannot go from v0.29.3 to v0.28.0"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {image: "registry.example/headscale:stable"}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, "is v0.29.3"))

		By("remembering it where Headscale does not answer another operator")
		o.stop()
		setPodStatus(ctx, podOf(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail))), corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running("headscale", true)}})
		o = startOperatorIn(o.namespace)
		o.touch(ctx, "headscale")
		Expect(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)).Status.Version).To(Equal("v0.29.3"))
		Expect(ready(NewGomega(Fail))).To(be("True", v1beta1.ReasonReady, "is v0.29.3"))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.27.1}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonUpgradeRefused, "spec.version cannot go from v0.29.3 to v0.27.1"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.3}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "The pod is being replaced"))
		run(ctx, o.namespace, "containerd://2", ip)
		Eventually(ready).WithContext(ctx).Should(And(be("True", v1beta1.ReasonReady, "without OIDC"), HaveField("Message", Not(ContainSubstring("spec.version")))))
	})
})
