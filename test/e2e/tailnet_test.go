package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Where the tailnet's Headscale and its devices are.
const (
	tailnetNamespace = "e2e-tailnet"
	teamNamespace    = "e2e-team"
)

// What the router of the tailnet has, which is its first node.
const (
	routerTag   = "tag:router"
	routerRoute = "10.20.0.0/16"
	openPort    = firstAddress + ":80"
	closedPort  = firstAddress + ":443"
)

// reissuedWithin is how soon a key that was used up is replaced: it is noticed within 30 seconds,
// and a busy machine may take longer for the rest. How long it took is in the report.
const reissuedWithin = 75 * time.Second

// tailnetSpecs have users, pre-auth keys and a policy as resources, those of a team in a
// namespace of its own, with real Tailscale clients. Default-deny NetworkPolicies are in force
// beside the chart's, where the cluster enforces them: kind does, a cluster whose network plugin
// knows none does not, and a report entry says which it was.
func tailnetSpecs(helm func() release) {
	hs := &server{namespace: tailnetNamespace, name: "headscale", secret: "headscale-api-key"}
	router, phone := device{hs, "router"}, device{hs, "phone"}

	BeforeAll(func(ctx SpecContext) {
		newNamespaces(ctx, "restricted", tailnetNamespace, teamNamespace)
		DeferCleanup(func(ctx SpecContext) {
			mustKube(ctx, "delete", "networkpolicy/deny", "-n", operatorNamespace, "--ignore-not-found")
			helm().install(ctx, currentTag, currentTag)
		})
		helm().install(ctx, currentTag, currentTag, "--set", "networkPolicy.enabled=true",
			"--set", "networkPolicy.headscales.enabled=true", "--set", "networkPolicy.headscales.namespaces={"+tailnetNamespace+"}")
		denyAll(ctx, operatorNamespace, "Ingress, Egress")
		denyAll(ctx, tailnetNamespace, "Ingress")
		apply(ctx, fmt.Sprintf(`
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: %s, namespace: %s}
spec:
  version: %s
  config: {server_url: "%s", policy: {mode: database}, node: {ephemeral: {inactivity_timeout: 70s}}}
  access: [{namespaces: {names: [%s]}, users: true, tags: ["%s"]}]
`, hs.name, hs.namespace, newerHeadscale, hs.url(), teamNamespace, routerTag))
		hs.awaitReady(ctx)
	})

	It("creates, renames and deletes the users of a team, also where NetworkPolicies deny the rest", func(ctx SpecContext) {
		_, err := callHeadscale(ctx, http.MethodGet, "https://"+hs.mustPod(ctx).Status.PodIP+":9102/api/v1/user", "", "")
		Expect(err).To(MatchError(Or(ContainSubstring("certificate"), ContainSubstring("deadline exceeded"))))
		AddReportEntry("NetworkPolicies are enforced", strings.Contains(err.Error(), "deadline exceeded"))

		applyUser(ctx, "alice", "ana")
		awaitReadyObject(ctx, teamNamespace, "headscaleuser/alice")
		Expect(hs.users(ctx)).To(ConsistOf("ana"))
		applyUser(ctx, "alice", "alice")
		Eventually(hs.users).WithContext(ctx).Should(ConsistOf("alice"))
		applyUser(ctx, "bob", "bob")
		awaitReadyObject(ctx, teamNamespace, "headscaleuser/bob")
		Expect(hs.users(ctx)).To(ConsistOf("alice", "bob"))
		mustKube(ctx, "delete", "-n", teamNamespace, "headscaleuser/bob", "--timeout=1m")
		Expect(hs.users(ctx)).To(ConsistOf("alice"))
	})

	It("registers nodes by keys that are used once, and replaces each soon after", func(ctx SpecContext) {
		applyPolicy(ctx, "rules", routerPolicy)
		awaitReadyObject(ctx, tailnetNamespace, "headscalepolicy/rules")
		first := map[string]string{
			"router": applyKey(ctx, "router", "tags: ['"+routerTag+"']"), "phone": applyKey(ctx, "phone", "headscaleUserRef: alice"),
		}
		router.start(ctx, "router", "", "--routes="+routerRoute, "--serve=80,443")
		Expect(router.awaitOnline(ctx)).To(And(HaveField("IPAddresses", ContainElement(firstAddress)), HaveField("Tags", ConsistOf(routerTag))))
		phone.start(ctx, "phone", "", "--try="+openPort+","+closedPort)
		Expect(phone.awaitOnline(ctx)).To(And(HaveField("User.Name", "alice"), HaveField("Tags", BeEmpty())))
		for _, d := range []device{router, phone} {
			Eventually(func() string { return keyIn(ctx, d.name) }).ShouldNot(Equal(first[d.name]), d.name)
			after := d.replacedAfter(ctx)
			AddReportEntry("key of "+d.name+" replaced after", after.String())
			Expect(after).To(BeNumerically("<=", reissuedWithin))
			Eventually(timesUsed).WithContext(ctx).WithArguments(d.name).Should(Equal("1"), d.name)
		}
		tablet := device{hs, "tablet"}
		tablet.start(ctx, "phone", "")
		Expect(tablet.awaitOnline(ctx)).To(HaveField("User.Name", "alice"))
	})

	It("approves the router's route, and lets the phone reach the port that the policy opens only", func(ctx SpecContext) {
		Eventually(router.listed).WithContext(ctx).Should(HaveField("ApprovedRoutes", ConsistOf(routerRoute)))
		phone.reaches(ctx, openPort)
		By("opening the other port by another HeadscalePolicy")
		applyPolicy(ctx, "more", `acls: [{action: accept, src: ["alice@"], dst: ["tag:router:443"]}]`)
		phone.reaches(ctx, openPort, closedPort)
		mustKube(ctx, "delete", "-n", tailnetNamespace, "headscalepolicy/more")
		phone.reaches(ctx, openPort)
	})

	It("keeps the policy in force, as the nodes see it, when Headscale refuses another", func(ctx SpecContext) {
		// An SSH rule without its action, beside a rule that would open all ports.
		refused := strings.Replace(routerPolicy, routerTag+":80", routerTag+":*", 1) + "\n    ssh: [{src: ['alice@'], dst: ['" + routerTag + "'], users: [root]}]"
		applyPolicy(ctx, "rules", refused)
		mustKube(ctx, "wait", "-n", tailnetNamespace, "headscalepolicy/rules", `--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=Refused`, "--timeout=1m")
		Expect(mustKube(ctx, "get", "-n", tailnetNamespace, "headscalepolicy/rules", "-o", "jsonpath={.status.conditions[*].message}")).To(ContainSubstring("action must be specified"))
		// Headscale tells a node that connects anew what it has in memory.
		router.restart(ctx)
		phone.restart(ctx)
		phone.reaches(ctx, openPort)
		applyPolicy(ctx, "rules", routerPolicy)
		awaitReadyObject(ctx, tailnetNamespace, "headscalepolicy/rules")
	})

	stateSpecs(device{hs, "job"})

	It("keeps a user that has nodes, and names them", func(ctx SpecContext) {
		mustKube(ctx, "delete", "-n", teamNamespace, "headscalepreauthkeys", "--all", "--timeout=1m")
		Eventually(func() (string, error) {
			return kube(ctx, "get", "-n", teamNamespace, "secrets", "-o", "name", "-l", v1beta1.LabelComponent+"="+v1beta1.ComponentPreAuthKey)
		}).Should(BeEmpty())
		mustKube(ctx, "delete", "-n", teamNamespace, "headscaleuser/alice", "--wait=false")
		Eventually(func() (string, error) {
			return kube(ctx, "get", "-n", teamNamespace, "headscaleuser/alice", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")]}`)
		}).Should(And(ContainSubstring(`"HasNodes"`), ContainSubstring("phone"), ContainSubstring("tablet")))
		Expect(hs.users(ctx)).To(ConsistOf("alice"))
		mustKube(ctx, "delete", "-n", teamNamespace, "pod/phone", "pod/tablet")
		for _, name := range []string{"phone", "tablet"} {
			node, err := device{hs, name}.listed(ctx)
			Expect(err).NotTo(HaveOccurred())
			result, err := callHeadscale(ctx, http.MethodDelete, hs.url()+"/api/v1/node/"+node.ID, hs.readKey(ctx), "")
			Expect(err).NotTo(HaveOccurred())
			Expect(result.Status).To(Equal(http.StatusOK), result.Body)
		}
		mustKube(ctx, "wait", "-n", teamNamespace, "--for=delete", "headscaleuser/alice", "--timeout=2m")
		Expect(hs.users(ctx)).To(BeEmpty())
	})

	It("has no ephemeral node any more some time after its pod is gone", func(ctx SpecContext) {
		Eventually(device{hs, "job"}.listed).WithContext(ctx).Should(BeZero())
	})
}

// stateSpecs register an ephemeral node that keeps its state where its key is, and end it.
func stateSpecs(job device) {
	It("shares the key's Secret with the state of Tailscale", func(ctx SpecContext) {
		old := applyKey(ctx, "job", "headscaleUserRef: alice, reusable: true, ephemeral: true")
		letKeepState(ctx, "job")
		job.start(ctx, "job", "{name: TS_KUBE_SECRET, value: job}")
		node := job.awaitOnline(ctx)
		Expect(node.PreAuthKey.Ephemeral).To(BeTrue())
		state := stateIn(ctx, "job")
		Expect(state).NotTo(BeEmpty())

		mustKube(ctx, "annotate", "-n", teamNamespace, "secret/job", v1beta1.AnnotationPreAuthKeyRequested+"=now")
		Eventually(func() string { return keyIn(ctx, "job") }).Should(And(Not(BeEmpty()), Not(Equal(old))))
		Expect(slices.Collect(maps.Keys(stateIn(ctx, "job")))).To(ContainElements(slices.Collect(maps.Keys(state))))
		job.restart(ctx)
		Expect(job.awaitOnline(ctx).NodeKey).To(Equal(node.NodeKey), "its state was there")

		mustKube(ctx, "delete", "-n", teamNamespace, "headscalepreauthkey/job", "--timeout=1m")
		Expect(keyIn(ctx, "job")).To(BeEmpty())
		Expect(slices.Collect(maps.Keys(stateIn(ctx, "job")))).To(ContainElements(slices.Collect(maps.Keys(state))))
		Expect(mustKube(ctx, "get", "-n", teamNamespace, "secret/job", "-o", "jsonpath={.metadata.labels}{.metadata.annotations}")).NotTo(ContainSubstring("headscale"))
		mustKube(ctx, "delete", "-n", teamNamespace, "pod/job")
	})
}

// routerPolicy is a policy with a router that needs nobody's approval and one open port.
const routerPolicy = `tagOwners: {"tag:router": ["alice@"]}
    autoApprovers: {routes: {10.20.0.0/16: ["tag:router"]}}
    acls: [{action: accept, src: ["alice@"], dst: ["tag:router:80"]}]`

// denyAll denies all traffic of a namespace in some directions that no other NetworkPolicy allows.
func denyAll(ctx context.Context, namespace, directions string) {
	GinkgoHelper()
	apply(ctx, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: %s}
spec: {podSelector: {}, policyTypes: [%s]}
`, namespace, directions))
}

// applyUser applies a HeadscaleUser of the team.
func applyUser(ctx context.Context, name, username string) {
	GinkgoHelper()
	apply(ctx, fmt.Sprintf(`
apiVersion: headscale.infrado.cloud/v1beta1
kind: HeadscaleUser
metadata: {name: %s, namespace: %s}
spec: {headscaleRef: headscale, headscaleNamespace: %s, username: %s}
`, name, teamNamespace, tailnetNamespace, username))
}

// applyKey applies a HeadscalePreAuthKey of the team with fields of its spec, and returns the key.
func applyKey(ctx context.Context, name, more string) string {
	GinkgoHelper()
	apply(ctx, fmt.Sprintf(`
apiVersion: headscale.infrado.cloud/v1beta1
kind: HeadscalePreAuthKey
metadata: {name: %s, namespace: %s}
spec: {headscaleRef: headscale, headscaleNamespace: %s, %s}
`, name, teamNamespace, tailnetNamespace, more))
	awaitReadyObject(ctx, teamNamespace, "headscalepreauthkey/"+name)
	key := keyIn(ctx, name)
	Expect(key).NotTo(BeEmpty())
	return key
}

// applyPolicy applies a HeadscalePolicy.
func applyPolicy(ctx context.Context, name, policy string) {
	GinkgoHelper()
	apply(ctx, fmt.Sprintf(`
apiVersion: headscale.infrado.cloud/v1beta1
kind: HeadscalePolicy
metadata: {name: %s, namespace: %s}
spec:
  headscaleRef: headscale
  policy:
    %s
`, name, tailnetNamespace, policy))
}

// awaitReadyObject waits until an object is ready in its present generation, and has nothing to add.
func awaitReadyObject(ctx context.Context, namespace, object string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		printed, err := kube(ctx, "get", "-n", namespace, object, "-o", "json")
		g.Expect(err).NotTo(HaveOccurred())
		var seen struct {
			Metadata struct{ Generation int64 }
			Status   struct {
				Conditions []struct {
					Type, Status, Message string
					ObservedGeneration    int64
				}
			}
		}
		g.Expect(json.Unmarshal([]byte(printed), &seen)).To(Succeed())
		g.Expect(seen.Status.Conditions).To(ConsistOf(And(HaveField("Type", v1beta1.ConditionReady), HaveField("Status", "True"),
			HaveField("ObservedGeneration", seen.Metadata.Generation), HaveField("Message", Not(ContainSubstring("but"))))))
	}).Should(Succeed())
}

// keyIn is the key in a Secret of the team, or "".
func keyIn(ctx context.Context, secret string) string {
	return string(dataOf(ctx, secret)["key"])
}

// stateIn is what else is in it.
func stateIn(ctx context.Context, secret string) map[string][]byte {
	state := dataOf(ctx, secret)
	delete(state, "key")
	return state
}

func dataOf(ctx context.Context, secret string) map[string][]byte {
	object := &corev1.Secret{}
	if admin.Get(ctx, client.ObjectKey{Namespace: teamNamespace, Name: secret}, object) != nil {
		return nil
	}
	return object.Data
}

// timesUsed is how many keys of a HeadscalePreAuthKey were used up.
func timesUsed(ctx context.Context, name string) (string, error) {
	return kube(ctx, "get", "-n", teamNamespace, "headscalepreauthkey/"+name, "-o", "jsonpath={.status.used}")
}

// letKeepState gives a ServiceAccount of the name of a Secret the rights that Tailscale's container
// needs to keep its state there.
func letKeepState(ctx context.Context, name string) {
	GinkgoHelper()
	apply(ctx, fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: %[1]s, namespace: %[2]s}
rules: [{apiGroups: [""], resources: [secrets], resourceNames: [%[1]s], verbs: [get, patch, update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: %[1]s, namespace: %[2]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: %[1]s}
subjects: [{kind: ServiceAccount, name: %[1]s, namespace: %[2]s}]
`, name, teamNamespace))
}

// device is a Tailscale client of the team, in a pod of its name.
type device struct {
	server *server
	name   string
}

// start runs the device with the key that a Secret has, as an environment variable. With another
// variable it gets the ServiceAccount of its name.
func (d device) start(ctx context.Context, secret, variable string, args ...string) {
	GinkgoHelper()
	account := "  automountServiceAccountToken: false\n"
	if variable != "" {
		account = "  serviceAccountName: " + d.name + "\n"
	}
	apply(ctx, podManifest(teamNamespace, d.name, nodeImage, `    env: [{name: TS_AUTHKEY, valueFrom: {secretKeyRef: {name: `+secret+`, key: key}}}, `+variable+`]
    volumeMounts: [{name: state, mountPath: /state}, {name: state, mountPath: /tmp}]
  volumes: [{name: state, emptyDir: {}}]
`+account, append([]string{"--url=" + d.server.url(), "--hostname=" + d.name, "--state=/state"}, args...)...))
}

// listed is the device as Headscale lists it, or nothing.
func (d device) listed(ctx context.Context) (listed, error) {
	nodes, err := d.server.nodes(ctx)
	i := slices.IndexFunc(nodes, func(node listed) bool { return node.GivenName == d.name })
	if i < 0 {
		return listed{}, err
	}
	return nodes[i], nil
}

// awaitOnline waits until the device is connected, and returns it as Headscale lists it.
func (d device) awaitOnline(ctx context.Context) listed {
	GinkgoHelper()
	var seen listed
	Eventually(func(g Gomega) {
		var err error
		seen, err = d.listed(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(seen.Online).To(BeTrue())
		g.Expect(lastReport(ctx, g, teamNamespace, d.name).State).To(Equal("Running"))
	}).Should(Succeed())
	return seen
}

// replacedAfter is how long after the device registered the key was created that is now in the
// Secret of its name.
func (d device) replacedAfter(ctx context.Context) time.Duration {
	GinkgoHelper()
	node, err := d.listed(ctx)
	Expect(err).NotTo(HaveOccurred())
	secret := &corev1.Secret{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: teamNamespace, Name: d.name}, secret)).To(Succeed())
	created, err := time.Parse(time.RFC3339, secret.Annotations[v1beta1.AnnotationPreAuthKeyCreatedAt])
	Expect(err).NotTo(HaveOccurred())
	return created.Sub(node.CreatedAt).Truncate(time.Millisecond)
}

// restart has the device connect anew, with the state that it has.
func (d device) restart(ctx context.Context) {
	GinkgoHelper()
	count := func() (string, error) {
		return kube(ctx, "get", "pod", "-n", teamNamespace, d.name, "-o", "jsonpath={.status.containerStatuses[?(@.ready)].restartCount}")
	}
	before, err := count()
	Expect(err).NotTo(HaveOccurred())
	endProcess(ctx, mustKube(ctx, "get", "pod", "-n", teamNamespace, d.name, "-o", "jsonpath={.metadata.uid}"), "node")
	Eventually(count).Should(And(Not(BeEmpty()), Not(Equal(before))))
	d.awaitOnline(ctx)
}

// reaches waits until the device reaches these of the addresses that it tries and no others, by
// what it has found out since now.
func (d device) reaches(ctx context.Context, addresses ...string) {
	GinkgoHelper()
	var before int
	Eventually(func(g Gomega) { before = lastReport(ctx, g, teamNamespace, d.name).Rounds }).Should(Succeed())
	Eventually(func(g Gomega) {
		now := lastReport(ctx, g, teamNamespace, d.name)
		g.Expect(now.Rounds).To(BeNumerically(">=", before+2))
		g.Expect(now.Reached).To(ConsistOf(addresses))
	}).Should(Succeed())
}
