package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
)

// routes are what the router of these specs announces.
var routes = []string{"10.1.0.0/24", "10.2.0.0/24"}

// tailnets are where a router and a laptop of the user alice registered.
var tailnets = map[string]func(ctx context.Context) (socket string, transport headscale.Transport){
	"v0.26.1": startTailnet("v0.26.1"), "v0.27.1": startTailnet("v0.27.1"), "v0.28.0": startTailnet("v0.28.0"), "v0.29.3": startTailnet("v0.29.3"),
	"v0.30 by its contract": func(context.Context) (string, headscale.Transport) {
		fake := startFake()
		database := fake.Database()
		alice := database.InsertUser(headscaletest.User{Name: "alice", CreatedAt: time.Now()})
		database.InsertNode(headscaletest.Node{Name: "router", UserID: alice.ID, Online: true, AvailableRoutes: routes, Addresses: []string{"100.64.0.1"}, CreatedAt: time.Now()})
		database.InsertNode(headscaletest.Node{Name: "laptop", UserID: alice.ID, Addresses: []string{"100.64.0.2"}, CreatedAt: time.Now()})
		return fake.SocketPath(), headscale.TransportHTTP
	},
}

// startTailnet starts a real Headscale in which nodes register as Tailscale does.
func startTailnet(version string) func(context.Context) (string, headscale.Transport) {
	return func(ctx context.Context) (string, headscale.Transport) {
		GinkgoHelper()
		server := startRelease(ctx, version)
		direct := headscale.NewClient(headscale.UnixSocket(server.SocketPath()))
		defer func() { _ = direct.Close() }()
		alice, err := direct.CreateUser(ctx, headscale.NewUser{Name: "alice"})
		Expect(err).NotTo(HaveOccurred())
		key, err := direct.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: alice.ID, Reusable: true, Expiration: time.Now().Add(time.Hour)})
		Expect(err).NotTo(HaveOccurred())
		router, err := nodetest.New("router", routes...)
		Expect(err).NotTo(HaveOccurred())
		Expect(router.Register(ctx, server.URL(), key.Key.Reveal())).To(BeTrue())
		connected, cancel := context.WithCancel(context.WithoutCancel(ctx))
		leave, err := router.Connect(connected, server.URL())
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { cancel(); leave() })
		laptop, err := nodetest.New("laptop")
		Expect(err).NotTo(HaveOccurred())
		Expect(laptop.Register(ctx, server.URL(), key.Key.Reveal())).To(BeTrue())
		return server.SocketPath(), headscale.TransportGRPC
	}
}

// typing runs the plugin as an administrator in a namespace, at a terminal where a text is typed.
func typing(ctx context.Context, namespace, text string, args ...string) result {
	GinkgoHelper()
	keyboard, terminal := openTerminal()
	defer func() { _, _ = keyboard.Close(), terminal.Close() }()
	_, err := keyboard.WriteString(text)
	Expect(err).NotTo(HaveOccurred())
	return atTerminal(ctx, terminal, &lines{}, append([]string{"-n", namespace}, args...)...)
}

// atTerminal runs the plugin as an administrator with a standard input, and a standard error output that
// can be read meanwhile.
func atTerminal(ctx context.Context, in *os.File, stderr *lines, args ...string) result {
	var stdout bytes.Buffer
	status := Run(ctx, append([]string{"--kubeconfig", plane.Kubeconfig()}, args...), Environment{
		Streams: genericiooptions.IOStreams{In: in, Out: &stdout, ErrOut: stderr},
		Getenv:  variables(nil), Now: time.Now, Build: Build{"dev", "unknown", "unknown"},
	})
	return result{stdout.String(), stderr.String(), status}
}

// nodesOf are the nodes that the plugin shows to programs, by their names.
func nodesOf(ctx context.Context, namespace string) map[string]nodeReport {
	GinkgoHelper()
	got := run(ctx, namespace, "nodes", "-o", "json")
	Expect(got).To(And(HaveField("Status", 0), HaveField("Stderr", "")))
	var shown list[nodeReport]
	Expect(json.Unmarshal([]byte(got.Stdout), &shown)).To(Succeed())
	byName := map[string]nodeReport{}
	for _, node := range shown.Items {
		byName[node.Name] = node
	}
	return byName
}

var _ = Describe("kubectl headscale nodes", func() {
	for version, start := range tailnets {
		Context("of Headscale "+version, Ordered, func() {
			var namespace string
			const asks = " asks for confirmation, and there is no terminal to ask on: use --yes to skip the question\n"

			BeforeAll(func(ctx SpecContext) {
				namespace = newNamespace(ctx)
				socket, transport := start(ctx)
				behindPort(ctx, namespace, socket, transport)
			})

			It("shows the nodes", func(ctx SpecContext) {
				Eventually(func() map[string]nodeReport { return nodesOf(ctx, namespace) }).WithContext(ctx).Should(And(
					HaveKeyWithValue("laptop", And(HaveField("Online", false), HaveField("Hostname", "laptop"), HaveField("WaitingRoutes", BeEmpty()))),
					HaveKeyWithValue("router", And(HaveField("Online", true), HaveField("User", "alice"), HaveField("Addresses", ContainElement("100.64.0.1")), HaveField("WaitingRoutes", ConsistOf(routes)), HaveField("Expired", false)))))
				got := run(ctx, namespace, "nodes")
				Expect(got).To(And(HaveField("Stderr", ""), HaveField("Status", 0)))
				Expect(got.Stdout).To(And(MatchRegexp(`^ID +NAME +USER +ADDRESSES +ONLINE +LAST SEEN +EXPIRY +TAGS +ROUTES +WAITING\n2 +laptop +alice +100\.64\.0\.2\S* +false `),
					MatchRegexp(`\n1 +router +alice +100\.64\.0\.1\S* +true +now +never +- +- +10\.1\.0\.0/24,10\.2\.0\.0/24\n$`)))
				for _, name := range []string{"router", "1", "100.64.0.1"} {
					Expect(run(ctx, namespace, "nodes", name).Stdout).To(MatchRegexp(`(?s)^Node +router: online\n.*\nWaiting +10\.1\.0\.0/24, 10\.2\.0\.0/24\n$`))
				}
				Expect(run(ctx, namespace, "nodes", "router", "-o", "wide").Stdout).To(MatchRegexp(`^ID +NAME .* HOST +CREATED +KEY +ANNOUNCED +ROUTES +WAITING\n1 +router .*\n$`))
				Expect(run(ctx, namespace, "nodes", "laptop", "-o", "yaml").Stdout).To(And(HavePrefix("addresses:\n"), ContainSubstring("\nname: laptop\n")))
				Expect(run(ctx, namespace, "nodes", "absent")).To(Equal(result{"", `error: there is no node "absent" in Headscale ` + namespace + "/headscale; kubectl headscale nodes lists its nodes\n", ExitFailure}))
			})

			It("completes names and routes", func(ctx SpecContext) {
				Expect(run(ctx, namespace, "__complete", "nodes", "r").Stdout).To(Equal("router\n:4\n"))
				Expect(run(ctx, namespace, "__complete", "nodes", "delete", "").Stdout).To(Equal("laptop\nrouter\n:4\n"))
				Expect(run(ctx, namespace, "__complete", "nodes", "delete", "laptop", "").Stdout).To(Equal(":4\n"))
				Expect(run(ctx, namespace, "__complete", "nodes", "approve-routes", "router", "").Stdout).To(Equal("10.1.0.0/24\n10.2.0.0/24\n:4\n"))
				Expect(run(ctx, namespace, "__complete", "nodes", "approve-routes", "router", "10.1.0.0/24", "").Stdout).To(Equal("10.2.0.0/24\n:4\n"))
				Expect(run(ctx, namespace, "__complete", "nodes", "--headscale", "").Stdout).To(Equal("headscale\n:4\n"))
			})

			It("does nothing without an answer", func(ctx SpecContext) {
				before := nodesOf(ctx, namespace)
				for _, args := range [][]string{{"approve-routes", "router"}, {"expire", "router"}, {"delete", "router"}} {
					command := append([]string{"nodes"}, args...)
					Expect(run(ctx, namespace, command...)).To(Equal(result{"", "error: kubectl headscale nodes " + args[0] + asks, ExitUsage}))
					for _, text := range []string{"n\n", "\n", "yess\n", "\x04"} {
						Expect(typing(ctx, namespace, text, command...)).To(And(HaveField("Status", ExitFailure), HaveField("Stdout", ""),
							HaveField("Stderr", MatchRegexp(`^\w+ .*router \(id 1, user alice, 100\.64\.0\.1, online\)\?.* \[y/N\] \n?error: nothing was changed\n$`))))
					}
				}
				after := nodesOf(ctx, namespace)
				Expect(after["router"]).To(And(HaveField("ApprovedRoutes", BeEmpty()), HaveField("Expired", false), HaveField("CreatedAt", Equal(before["router"].CreatedAt))))
			})

			It("approves routes beside those that are approved", func(ctx SpecContext) {
				Expect(typing(ctx, namespace, "y\n", "nodes", "approve-routes", "router", "10.2.0.0/24")).To(And(HaveField("Status", 0),
					HaveField("Stdout", "Approved 10.2.0.0/24 for node router (id 1, user alice, 100.64.0.1, online).\n"),
					HaveField("Stderr", HavePrefix("Approve 10.2.0.0/24 for node router (id 1, user alice, 100.64.0.1, online)? [y/N] "))))
				Expect(nodesOf(ctx, namespace)["router"]).To(And(HaveField("ApprovedRoutes", ConsistOf("10.2.0.0/24")), HaveField("WaitingRoutes", ConsistOf("10.1.0.0/24"))))
				got := run(ctx, namespace, "nodes", "approve-routes", "router", "--yes", "-o", "json")
				Expect(got).To(And(HaveField("Status", 0), HaveField("Stderr", "")))
				var node nodeReport
				Expect(json.Unmarshal([]byte(got.Stdout), &node)).To(Succeed())
				Expect(node).To(And(HaveField("ApprovedRoutes", ConsistOf(routes)), HaveField("WaitingRoutes", BeEmpty())))
				Expect(run(ctx, namespace, "nodes", "approve-routes", "router", "-y")).To(And(HaveField("Status", 0), HaveField("Stdout", HavePrefix("Nothing to do: no route of node router "))))
				Expect(run(ctx, namespace, "nodes").Stdout).To(MatchRegexp(` +10\.1\.0\.0/24,10\.2\.0\.0/24 +-\n$`))
			})

			It("expires a node", func(ctx SpecContext) {
				Expect(typing(ctx, namespace, "yes\n", "nodes", "expire", "laptop")).To(And(HaveField("Status", 0), HaveField("Stdout", MatchRegexp(`^Expired node laptop \(id 2, .*\): it is cut off until it logs in again\.\n$`))))
				Expect(nodesOf(ctx, namespace)).To(And(HaveKeyWithValue("laptop", HaveField("Expired", true)), HaveKeyWithValue("router", HaveField("Expired", false))))
				Expect(run(ctx, namespace, "nodes", "expire", "laptop", "--yes").Stdout).To(HavePrefix("Nothing to do: node laptop (id 2"))
			})

			It("deletes a node", func(ctx SpecContext) {
				Expect(typing(ctx, namespace, "y\n", "nodes", "delete", "laptop")).To(And(HaveField("Status", 0), HaveField("Stdout", MatchRegexp(`^Deleted node laptop \(id 2, .*\)\.\n$`))))
				Expect(nodesOf(ctx, namespace)).To(And(HaveLen(1), HaveKey("router")))
				got := run(ctx, namespace, "nodes", "delete", "router", "--yes", "-o", "json")
				Expect(got).To(And(HaveField("Status", 0), HaveField("Stdout", ContainSubstring(`"name": "router"`))))
				Expect(run(ctx, namespace, "nodes")).To(Equal(result{"", "Headscale " + namespace + "/headscale has no nodes.\n", 0}))
				Expect(run(ctx, namespace, "nodes", "-o", "json").Stdout).To(Equal("{\n  \"items\": []\n}\n"))
			})
		})
	}

	It("refuses what cannot be used", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		newHeadscale(ctx, namespace, "one")
		newHeadscale(ctx, namespace, "other")
		for words, args := range map[string][]string{
			"kubectl headscale nodes takes one NODE, and was given 2":                   {"a", "b"},
			"kubectl headscale nodes expire takes one NODE, and was given 0":            {"expire"},
			"kubectl headscale nodes approve-routes takes a NODE":                       {"approve-routes"},
			`"router" is no ROUTE, such as 10.1.0.0/24`:                                 {"approve-routes", "a", "router"},
			"10.1.0.1/24 is no ROUTE, because it has bits behind its mask: 10.1.0.0":    {"approve-routes", "a", "10.1.0.1/24"},
			"has 2 Headscales, so say which one: one, other; name one with --headscale": {},
			`"a/b" is not the NAME of a Headscale`:                                      {"--headscale", "a/b"},
			"the formats are wide, json and yaml":                                       {"-o", "table"},
		} {
			Expect(run(ctx, namespace, append([]string{"nodes"}, args...)...)).To(And(HaveField("Status", ExitUsage), HaveField("Stderr", ContainSubstring(words))))
		}
		Expect(run(ctx, namespace, "nodes", "--headscale", "third")).To(And(HaveField("Status", ExitFailure), HaveField("Stderr", ContainSubstring(`there is no Headscale "third"`))))
	})

	It("says which right is missing, for each, and why Headscale cannot be asked", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		socket, transport := tailnets["v0.30 by its contract"](ctx)
		ports := behindPort(ctx, namespace, socket, transport)
		notAsked := ", so Headscale " + namespace + "/headscale cannot be queried\n"
		headscales := role(ctx, rbacv1.PolicyRule{APIGroups: []string{v1beta1.GroupName}, Resources: []string{"headscales"}, Verbs: []string{"list"}})
		secrets := role(ctx, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}})
		forward := role(ctx, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/portforward"}, Verbs: []string{"create"}})
		for words, roles := range map[string][]string{
			"you are not allowed to do this: headscales.headscale.infrado.cloud is forbidden:":                      {secrets, forward},
			"error: you are not allowed to read Secret headscale-api-key with the API key (get secrets)" + notAsked: {headscales, forward},
			"error: you are not allowed to forward a port of pod headscale-0 (create pods/portforward)" + notAsked:  {headscales, secrets},
		} {
			config := person(ctx, namespace, roles...)
			for _, args := range [][]string{{"nodes"}, {"nodes", "delete", "laptop", "--yes"}} {
				Expect(as(ctx, config, args...)).To(And(HaveField("Status", ExitFailure), HaveField("Stdout", ""), HaveField("Stderr", And(ContainSubstring(words), WithTransform(countLines, Equal(1))))))
			}
			Expect(as(ctx, config, "__complete", "nodes", "delete", "").Stdout).To(Equal(":4\n"))
		}
		for _, roles := range [][]string{{headscales, secrets, forward}, slices.Clone(editor)} {
			Expect(as(ctx, person(ctx, namespace, roles...), "nodes")).To(And(HaveField("Status", 0), HaveField("Stderr", "")))
		}

		says := func(words string) {
			GinkgoHelper()
			Expect(run(ctx, namespace, "nodes")).To(And(HaveField("Status", ExitFailure), HaveField("Stderr", Equal("error: "+words+notAsked))))
		}
		ports["9102"] = "127.0.0.1:1"
		says("port 9102 of pod headscale-0 cannot be forwarded: error forwarding port 9102: connection refused")
		Expect(admin.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "headscale-0"}}, client.GracePeriodSeconds(0))).To(Succeed())
		says("there is no pod headscale-0")
	})

	It("says what became of a change that Headscale does not make", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		fake := startFake()
		fake.Database().InsertNode(headscaletest.Node{Name: "laptop", CreatedAt: time.Now()})
		behindPort(ctx, namespace, fake.SocketPath(), headscale.TransportHTTP)
		fake.Inject(headscaletest.Fault{On: headscaletest.DeleteNode, Do: headscaletest.Refuse, Times: 1})
		Expect(run(ctx, namespace, "nodes", "delete", "laptop", "--yes")).To(And(HaveField("Status", ExitFailure), HaveField("Stderr", MatchRegexp(`^error: deleting a node: Headscale refused with .*database is locked\n$`))))
		fake.Inject(headscaletest.Fault{On: headscaletest.DeleteNode, Do: headscaletest.LoseAnswer, Times: 1})
		Expect(run(ctx, namespace, "nodes", "delete", "laptop", "--yes")).To(And(HaveField("Status", ExitFailure), HaveField("Stderr", HaveSuffix("; kubectl headscale nodes shows whether it was done\n"))))
		Expect(fake.Database().Nodes()).To(BeEmpty())
	})

	It("changes no other node than the one that was asked about", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		fake := startFake()
		asked := fake.Database().InsertNode(headscaletest.Node{Name: "laptop", CreatedAt: time.Now()})
		behindPort(ctx, namespace, fake.SocketPath(), headscale.TransportHTTP)
		keyboard, terminal := openTerminal()
		defer func() { _, _ = keyboard.Close(), terminal.Close() }()
		answers, said := make(chan result), &lines{}
		go func() {
			defer GinkgoRecover()
			answers <- atTerminal(ctx, terminal, said, "-n", namespace, "nodes", "delete", "laptop")
		}()
		Eventually(said.String).Should(ContainSubstring("[y/N]"))
		fake.Database().RemoveNode(asked.ID)
		fake.Database().InsertNode(headscaletest.Node{Name: "laptop", CreatedAt: time.Now()})
		_, err := keyboard.WriteString("y\n")
		Expect(err).NotTo(HaveOccurred())
		Eventually(answers).Should(Receive(And(HaveField("Status", ExitFailure), HaveField("Stderr", HaveSuffix("error: node laptop (id 1) was deleted or renamed meanwhile: nothing was changed\n")))))
		Expect(fake.Database().Nodes()).To(HaveLen(1))
	})

	It("is interrupted while it asks", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		fake := startFake()
		fake.Database().InsertNode(headscaletest.Node{Name: "laptop", CreatedAt: time.Now()})
		behindPort(ctx, namespace, fake.SocketPath(), headscale.TransportHTTP)
		keyboard, terminal := openTerminal()
		interrupted, interrupt := context.WithCancel(ctx)
		defer interrupt()
		answers, said := make(chan result), &lines{}
		go func() {
			defer GinkgoRecover()
			answers <- atTerminal(interrupted, terminal, said, "-n", namespace, "nodes", "delete", "laptop")
		}()
		Eventually(said.String).Should(ContainSubstring("[y/N]"))
		interrupt()
		Eventually(answers).Should(Receive(HaveField("Status", ExitInterrupted)))
		_, _ = keyboard.Close(), terminal.Close()
		Expect(fake.Database().Nodes()).To(HaveLen(1))
	})
})

// countLines counts the lines of a text.
func countLines(text string) int { return strings.Count(text, "\n") }
