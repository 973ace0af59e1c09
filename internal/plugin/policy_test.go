package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/adminserver"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/internal/plugin/plugintest"
	"infrado.cloud/headscale-operator/internal/policy"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// startKubelet starts a kubelet, and returns the name of its node.
func startKubelet(ctx context.Context, k *plugintest.Kubelet) string {
	GinkgoHelper()
	node, stop := k.Start()
	DeferCleanup(stop)
	status := node.Status
	Expect(admin.Create(ctx, node)).To(Succeed())
	node.Status = status
	Expect(admin.Status().Update(ctx, node)).To(Succeed())
	return node.Name
}

// serveAdminEndpoint serves the socket of a Headscale as an API Key Manager does, to whoever has
// testKey, and returns its address and its pin.
func serveAdminEndpoint(socket string, transport headscale.Transport) (address, pin string) {
	GinkgoHelper()
	certificate, err := adminserver.NewCertificate(time.Now())
	Expect(err).NotTo(HaveOccurred())
	server := &adminserver.Server{
		Certificate: certificate, Keys: adminserver.NewKeyring(time.Now), Dial: headscale.UnixSocket(socket),
		Transport: func() headscale.Transport { return transport }, Log: slog.New(slog.NewTextHandler(GinkgoWriter, nil)),
	}
	server.Keys.Accept("9ac3e6a37ae0", headscale.NewKey(testKey), time.Time{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	DeferCleanup(func() {
		cancel()
		Eventually(done).Should(Receive())
	})
	return listener.Addr().String(), certificate.Pin()
}

// newPodOn makes the pod of a Headscale on a node.
func newPodOn(ctx context.Context, namespace, node string) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "headscale-0"},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "headscale", Image: "headscale"}}},
	})).To(Succeed())
}

// newPolicy makes a HeadscalePolicy that the operator has reported on.
func newPolicy(ctx context.Context, namespace, name string, order int32, text, reason, message string) {
	GinkgoHelper()
	object := &v1beta1.HeadscalePolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1beta1.HeadscalePolicySpec{HeadscaleRef: "headscale", Order: &order, HuJSON: text},
	}
	Expect(admin.Create(ctx, object)).To(Succeed())
	at := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
	object.Status = v1beta1.HeadscalePolicyStatus{ObservedGeneration: object.Generation, AppliedAt: &at, AppliedDigest: "x",
		Conditions: []metav1.Condition{condition(v1beta1.ConditionReady, reason == v1beta1.ReasonReady, reason, message)}}
	Expect(admin.Status().Update(ctx, object)).To(Succeed())
}

// role makes a ClusterRole with the only rule that it has, and returns its name.
func role(ctx context.Context, rule rbacv1.PolicyRule) string {
	GinkgoHelper()
	made := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{GenerateName: "person-"}, Rules: []rbacv1.PolicyRule{rule}}
	Expect(admin.Create(ctx, made)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, made)).To(Succeed()) })
	return made.Name
}

// startReal starts a real Headscale, and returns its socket and what it speaks.
func startReal(ctx context.Context) (string, headscale.Transport) {
	GinkgoHelper()
	return startRelease(ctx, serverbuild.DefaultHeadscale).SocketPath(), headscale.TransportGRPC
}

// startRelease starts a real Headscale of a release.
func startRelease(ctx context.Context, version string) *env.Headscale {
	GinkgoHelper()
	root, err := serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	servers, err := serverbuild.Find(serverbuild.Options{Root: root, Headscale: []string{version}})
	Expect(err).NotTo(HaveOccurred())
	guard, err := process.NewGuard("plugin-hs-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(guard.Close)
	hs, err := env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: servers.Headscale[version], Guard: guard, Output: GinkgoWriter,
		Config: map[string]any{"policy": map[string]any{"mode": "database"}}})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(hs.Stop)
	return hs
}

// startContract starts what keeps to the contract of v0.30.
func startContract(context.Context) (string, headscale.Transport) {
	GinkgoHelper()
	return startFake().SocketPath(), headscale.TransportHTTP
}

func startFake() *headscaletest.Server {
	GinkgoHelper()
	guard, err := process.NewGuard("plugin-fake-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(guard.Close)
	socket := filepath.Join(guard.Dir(), "s")
	fake := headscaletest.New(socket, headscaletest.V030)
	Expect(fake.Start()).To(Succeed())
	DeferCleanup(fake.Stop)
	return fake
}

// behindPort makes a Headscale in a namespace with a pod, of which the port of the admin endpoint leads
// to a socket. What it returns are the ports of the pod.
func behindPort(ctx context.Context, namespace, socket string, transport headscale.Transport) map[string]string {
	GinkgoHelper()
	address, pin := serveAdminEndpoint(socket, transport)
	k := &plugintest.Kubelet{Ports: map[string]string{"9102": address}}
	newHeadscale(ctx, namespace, "headscale")
	newSecret(ctx, namespace, func(s *corev1.Secret) { s.Annotations[v1beta1.AnnotationAdminCertificate] = pin })
	newPodOn(ctx, namespace, startKubelet(ctx, k))
	return k.Ports
}

var _ = Describe("kubectl headscale policy", func() {
	var (
		namespace string
		direct    *headscale.Client
		k         *plugintest.Kubelet
		address   string
	)
	const web, db = `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:443"]}]}`, `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:5432"]}]}`
	for _, server := range []struct {
		name  string
		start func(ctx context.Context) (socket string, transport headscale.Transport)
	}{{serverbuild.DefaultHeadscale, startReal}, {"v0.30 by its contract", startContract}} {
		Context("of Headscale "+server.name, Ordered, func() {
			BeforeAll(func(ctx SpecContext) {
				socket, transport := server.start(ctx)
				direct = headscale.NewClient(headscale.UnixSocket(socket))
				DeferCleanup(direct.Close)
				var pin string
				address, pin = serveAdminEndpoint(socket, transport)
				k = &plugintest.Kubelet{Ports: map[string]string{"9102": address}}
				namespace = newNamespace(ctx)
				newHeadscale(ctx, namespace, "headscale")
				newSecret(ctx, namespace, func(s *corev1.Secret) { s.Annotations[v1beta1.AnnotationAdminCertificate] = pin })
				newPodOn(ctx, namespace, startKubelet(ctx, k))
			})

			It("says that there is none, which allows everything", func(ctx SpecContext) {
				got := run(ctx, namespace, "policy")
				Expect(got).To(And(HaveField("Stderr", ""), HaveField("Status", 0)))
				Expect(got.Stdout).To(MatchRegexp(`(?m)^In force +none, which allows everything$`))
				Expect(got.Stdout).To(MatchRegexp(`(?m)^Difference +there is no HeadscalePolicy$`))
			})

			It("shows what is in force, what the HeadscalePolicies make, and the difference", func(ctx SpecContext) {
				_, err := direct.SetPolicy(ctx, "// by hand\n"+web)
				Expect(err).NotTo(HaveOccurred())
				newPolicy(ctx, namespace, "web", 100, web, v1beta1.ReasonReady, "Headscale has it as its policy")
				newPolicy(ctx, namespace, "db", 200, db, v1beta1.ReasonContested, "Somebody else changes the policy again and again")
				got := run(ctx, namespace, "policy")
				Expect(got).To(And(HaveField("Stderr", ""), HaveField("Status", ExitNotReady)))
				Expect(got.Stdout).To(And(
					MatchRegexp(`(?m)^Difference +acls$`), MatchRegexp(`(?m)^web +100 +True +Ready +60m ago +Headscale has it as its policy$`),
					MatchRegexp(`(?m)^db +200 +False +Contested +60m ago +Somebody else changes the policy again and again$`),
					ContainSubstring("\nIN FORCE\n// by hand\n"+web+"\n"),
					ContainSubstring("\nJOINED FROM THE HEADSCALEPOLICIES\n// Written by the operator, from the HeadscalePolicies of Headscale "+namespace+"/headscale.\n"),
					ContainSubstring("\nDIFFERENCE\n--- in force\n+++ HeadscalePolicies\n"), ContainSubstring("\n+    "+`{"action": "accept", "dst": ["*:5432"], "src": ["*"]},`+"\n")))
			})

			It("says the same for programs", func(ctx SpecContext) {
				for _, format := range formats {
					Expect(run(ctx, namespace, "policy", "headscale", "-o", format)).To(HaveField("Status", ExitNotReady))
				}
				var report policyReport
				Expect(json.Unmarshal([]byte(run(ctx, namespace, "policy", "headscale", "-o", "json").Stdout), &report)).To(Succeed())
				Expect(*report.InForce).To(Equal("// by hand\n" + web))
				Expect(*report.Same).To(BeFalse())
				Expect(report.Sections).To(Equal([]string{"acls"}))
				Expect(report.Policies).To(HaveExactElements(HaveField("Name", "web"), HaveField("Name", "db")))
			})

			It("finds no difference but in meaning", func(ctx SpecContext) {
				var report policyReport
				Expect(json.Unmarshal([]byte(run(ctx, namespace, "policy", "-o", "json").Stdout), &report)).To(Succeed())
				_, err := direct.SetPolicy(ctx, "// set by hand\n"+*report.Joined)
				Expect(err).NotTo(HaveOccurred())
				got := run(ctx, namespace, "policy")
				Expect(got).To(And(HaveField("Status", ExitNotReady), HaveField("Stdout", MatchRegexp(`(?m)^Difference +none$`))), "one is not ready")
				object := &v1beta1.HeadscalePolicy{}
				Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "db"}, object)).To(Succeed())
				object.Status.Conditions = []metav1.Condition{condition(v1beta1.ConditionReady, true, v1beta1.ReasonReady, "Headscale has it in its policy, joined with 1 more")}
				Expect(admin.Status().Update(ctx, object)).To(Succeed())
				Expect(run(ctx, namespace, "policy").Status).To(BeZero())
			})

			It("says which right is missing, for each", func(ctx SpecContext) {
				Expect(as(ctx, person(ctx, namespace, append(slices.Clone(editor), "headscale-operator-headscalepolicy-editor-role")...), "policy").Status).To(BeZero(), "an editor may do all")
				headscales := role(ctx, rbacv1.PolicyRule{APIGroups: []string{v1beta1.GroupName}, Resources: []string{"headscales"}, Verbs: []string{"get", "list"}})
				policies := role(ctx, rbacv1.PolicyRule{APIGroups: []string{v1beta1.GroupName}, Resources: []string{"headscalepolicies"}, Verbs: []string{"list"}})
				secrets := role(ctx, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}})
				ports := role(ctx, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/portforward"}, Verbs: []string{"create"}})
				websockets := role(ctx, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/portforward"}, Verbs: []string{"get"}})
				const noList = "you are not allowed to list the HeadscalePolicies of namespace %s, so that the policy they make is not known"
				const noSecret = "you are not allowed to read Secret headscale-api-key with the API key (get secrets), so that the policy in force is not known"
				const noPort = "you are not allowed to forward a port of pod headscale-0 (create pods/portforward), so that the policy in force is not known"
				for _, test := range []struct {
					roles  []string
					status int
					unread []string
				}{
					{[]string{headscales, policies, secrets, ports}, 0, nil},
					{[]string{headscales, secrets, ports}, ExitNotReady, []string{fmt.Sprintf(noList, namespace)}},
					{[]string{headscales, policies, ports}, ExitNotReady, []string{noSecret}},
					{[]string{headscales, policies, secrets}, ExitNotReady, []string{noPort}},
					{[]string{headscales, policies, secrets, websockets}, ExitNotReady, []string{noPort}},
				} {
					config := person(ctx, namespace, test.roles...)
					got := as(ctx, config, "policy", "-o", "json")
					Expect(got.Status).To(Equal(test.status), got.Stderr+got.Stdout)
					var report policyReport
					Expect(json.Unmarshal([]byte(got.Stdout), &report)).To(Succeed())
					Expect(report.Unread).To(Equal(test.unread))
					if test.unread != nil {
						Expect(as(ctx, config, "policy").Stdout).To(ContainSubstring(test.unread[0]))
					}
				}
				Expect(as(ctx, person(ctx, namespace, headscales), "policy")).To(Equal(result{"", "error: " + fmt.Sprintf(noList, namespace) + "; and " + noSecret + "\n", ExitFailure}))
			})

			It("says why Headscale cannot be asked", func(ctx SpecContext) {
				unread := func() string {
					got := run(ctx, namespace, "policy", "-o", "json")
					Expect(got.Status).To(Equal(ExitNotReady), got.Stderr)
					var report policyReport
					Expect(json.Unmarshal([]byte(got.Stdout), &report)).To(Succeed())
					Expect(report.InForce).To(BeNil())
					Expect(report.Joined).NotTo(BeNil())
					return strings.Join(report.Unread, "\n")
				}
				k.Ports["9102"] = "127.0.0.1:1"
				Expect(unread()).To(Equal("port 9102 of pod headscale-0 cannot be forwarded: error forwarding port 9102: connection refused, so that the policy in force is not known"))
				other, _ := serveAdminEndpoint("/nowhere", headscale.TransportGRPC)
				k.Ports["9102"] = other
				Expect(unread()).To(ContainSubstring("the certificate of the admin endpoint is not the expected one"))
				Expect(admin.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "headscale-0"}}, client.GracePeriodSeconds(0))).To(Succeed())
				Expect(unread()).To(ContainSubstring("there is no pod headscale-0"))
				secret := &corev1.Secret{}
				Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1beta1.DefaultSecretName}, secret)).To(Succeed())
				delete(secret.Annotations, v1beta1.AnnotationAdminCertificate)
				Expect(admin.Update(ctx, secret)).To(Succeed())
				Expect(unread()).To(ContainSubstring("has no annotation " + v1beta1.AnnotationAdminCertificate))
			})
		})
	}
})

// What the operator would not send is not called the joined policy.
var _ = Describe("The HeadscalePolicies of a Headscale", func() {
	made := func(name string, age int, text, applied string) v1beta1.HeadscalePolicy {
		return v1beta1.HeadscalePolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: at(-time.Duration(age) * time.Minute), Generation: 1},
			Spec:       v1beta1.HeadscalePolicySpec{HuJSON: text}, Status: v1beta1.HeadscalePolicyStatus{AppliedDigest: applied},
		}
	}
	const one, two = `{"hosts": {"a": "10.0.0.1/32"}}`, `{"hosts": {"a": "10.0.0.2/32"}, "acls": []}`
	DescribeTable("are joined as the operator does", func(joined []bool, means string, policies ...v1beta1.HeadscalePolicy) {
		report := describePolicies(headscaleNamed("headscale"), policies, nil)
		for i, part := range report.Policies {
			Expect(part.Joined).To(Equal(joined[i]), part.Name)
			Expect(part.Message).To(ContainSubstring("has not observed it yet"))
		}
		if means == "" {
			Expect(report.Joined).To(BeNil())
			return
		}
		document, err := policy.Parse(*report.Joined)
		Expect(err).NotTo(HaveOccurred())
		wanted, err := policy.Parse(means)
		Expect(err).NotTo(HaveOccurred())
		Expect(document.Digest()).To(Equal(wanted.Digest()))
	},
		Entry("one", []bool{true}, one, made("a", 1, one, "")),
		Entry("the younger is left out", []bool{false, true}, two, made("a", 1, one, ""), made("b", 2, two, "")),
		Entry("what cannot be read is left out", []bool{false, true}, two, made("a", 1, "{", ""), made("b", 2, two, "")),
		Entry("one that is in force is not left out", []bool{false, true}, "", made("a", 1, "{", "x"), made("b", 2, two, "")),
		Entry("nothing is left", []bool{false}, "", made("a", 1, "{", "")),
		Entry("there is none", nil, ""),
	)
})
