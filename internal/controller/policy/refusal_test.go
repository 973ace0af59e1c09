package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/test/env"
)

// badPolicy is what Headscale refuses, in words that differ from release to release.
type badPolicy struct {
	name, policy string
	// words are those of a release; where it has none, it takes the policy.
	words map[string]string
}

// inAll are the same words of all releases.
func inAll(words string) map[string]string {
	all := map[string]string{}
	for _, version := range releases {
		all[version] = words
	}
	return all
}

var badPolicies = []badPolicy{
	{"a group that there is not", `{acls: [{action: accept, src: ["group:none"], dst: ["*:80"]}]}`, inAll("group:none")},
	{"a tag without an owner", `{acls: [{action: accept, src: ["tag:none"], dst: ["*:80"]}]}`, inAll("tag:none")},
	{"a host that is no address", `{hosts: {a: 300.1.1.1}, acls: []}`, inAll("300.1.1.1")},
	{"an action that there is not", `{acls: [{action: allow, src: ["*"], dst: ["*:80"]}]}`, inAll("action")},
	{"a destination without a port", `{acls: [{action: accept, src: ["*"], dst: ["alice@"]}]}`, map[string]string{"v0.27.1": "olon", "v0.28.0": "olon", "v0.29.3": "olon"}},
	{"groups that are no map", `{groups: [alice], acls: []}`, inAll("roup")},
	{"a test that fails", `{acls: [], tests: [{src: "alice@", accept: ["100.64.0.1:22"]}]}`, map[string]string{"v0.29.3": "100.64.0.1:22"}},
	{"a test of SSH that fails", `{acls: [], ssh: [], sshTests: [{src: "alice@", dst: ["alice@"], accept: [root]}]}`, map[string]string{"v0.29.3": "alice@"}},
}

var _ = Describe("What Headscale refuses", func() {
	for _, version := range releases {
		It("is said in its words, and the old policy is in force, with Headscale "+version, func(ctx SpecContext) {
			hs := startHeadscale(ctx, version)
			namespace := newNamespace(ctx)
			s := newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath()))
			s.newNode(ctx, hs)
			startOperator(namespace)
			put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
			isReady := condition(ctx, namespace, "base")
			Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
			for _, bad := range badPolicies {
				words := bad.words[version]
				if words == "" {
					continue
				}
				_, err := s.Direct.SetPolicy(ctx, jsonOf(bad.policy))
				Expect(err).To(HaveOccurred(), bad.name)
				own := refusalWords(err)
				Expect(own).To(ContainSubstring(words), bad.name)
				put(ctx, namespace, policyManifest("base", "policy: "+bad.policy))
				Eventually(isReady).WithContext(ctx).Should(Equal("False Refused: Headscale refuses the policy, and what was in force stays: "+own), bad.name)
				Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{"+rules(22)+"}"), bad.name)
				Expect(inMemory(ctx, hs)).To(ContainSubstring(`"First": 22`), bad.name)
				put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
				Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "), bad.name)
			}
		})
	}
})

var _ = Describe("A change by hand while a policy is refused", func() {
	It("stays until another one is accepted, and is named", func(ctx SpecContext) {
		hs := startHeadscale(ctx, "v0.29.3")
		namespace := newNamespace(ctx)
		s := newServer(ctx, namespace, "v0.29.3", headscale.UnixSocket(hs.SocketPath()))
		startOperator(namespace)
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
		isReady := condition(ctx, namespace, "base")
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
		put(ctx, namespace, policyManifest("base", `policy: {acls: [{action: accept, src: ["group:none"], dst: ["*:80"]}]}`))
		Eventually(isReady).WithContext(ctx).Should(And(HavePrefix("False Refused: "), Not(ContainSubstring("somebody else"))))
		s.byHand(ctx, "{"+rules(1)+"}")
		Eventually(isReady).WithContext(ctx).Should(And(HavePrefix("False Refused: "), ContainSubstring("probably somebody else has set it")))
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(1) + "}"))
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(23)+"}"))
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(23) + "}"))
	})
})

// v0.29.3 takes a policy into memory before it has stored it. Without a real node, a database that is
// locked shows it.
var _ = Describe("A policy that v0.29.3 refuses late", func() {
	It("is in memory until the one that is stored is sent again", func(ctx SpecContext) {
		hs := startHeadscale(ctx, "v0.29.3")
		patient := headscale.NewClient(headscale.UnixSocket(hs.SocketPath()), headscale.WithCallTimeout(time.Minute))
		DeferCleanup(patient.Close)
		set := func(port int) error {
			_, err := patient.SetPolicy(ctx, "{"+rules(port)+"}")
			return err
		}
		Expect(set(22)).To(Succeed())
		unlock := lockDatabase(hs)
		Expect(refusalWords(set(1))).To(ContainSubstring("database is locked"))
		unlock()
		stored, err := patient.GetPolicy(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(stored.Text).To(ContainSubstring("*:22"), "what it says")
		Expect(inMemory(ctx, hs)).To(ContainSubstring(`"First": 1,`), "what it does")
		Expect(set(22)).To(Succeed())
		Expect(inMemory(ctx, hs)).To(ContainSubstring(`"First": 22,`))
	})
})

// lockDatabase has the database of a Headscale take no writes, as another writer would: SQLite locks
// byte 120 of the shared memory of its write-ahead log for that.
func lockDatabase(hs *env.Headscale) (unlock func()) {
	GinkgoHelper()
	shared, err := os.OpenFile(filepath.Join(filepath.Dir(hs.SocketPath()), hs.Database+"-shm"), os.O_RDWR, 0)
	Expect(err).NotTo(HaveOccurred())
	lock := &syscall.Flock_t{Type: syscall.F_WRLCK, Start: 120, Len: 1}
	Eventually(func() error { return syscall.FcntlFlock(shared.Fd(), syscall.F_SETLK, lock) }).Should(Succeed())
	return func() { Expect(shared.Close()).To(Succeed()) }
}

var _ = Describe("What Headscale v0.30 refuses by its contract", func() {
	It("is said in its words, and the old policy is in force", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		path := filepath.Join(cluster.Guard.Dir(), "fake-"+namespace)
		fake := headscaletest.New(path, headscaletest.V030)
		Expect(fake.Start()).To(Succeed())
		DeferCleanup(fake.Stop)
		s := newServer(ctx, namespace, "v0.30.0", headscale.UnixSocket(path))
		startOperator(namespace)
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(22)+"}"))
		isReady := condition(ctx, namespace, "base")
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
		fake.Database().RefusePolicies("*:80", "parsing policy: group:none is not defined")
		sent := s.setCount()
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(80)+"}"))
		Eventually(isReady).WithContext(ctx).Should(And(HavePrefix("False Refused: Headscale refuses the policy, and what was in force stays: "), ContainSubstring("group:none is not defined")))
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(22) + "}"))
		Expect(s.setCount()).To(Equal(sent+2), "what was in force is sent again")
		// A test in what is stored may fail since a user is gone.
		fake.Database().RefusePolicies("acls", "test(s) failed")
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(81)+"}"))
		Eventually(isReady).WithContext(ctx).Should(And(HavePrefix("False Refused: "), ContainSubstring("; it refuses what it has stored, too, when that is sent again: ")))
		sending := func(g Gomega) string { return get(ctx, namespace, "base")(g).Status.SendingDigest }
		sent = s.setCount()
		Consistently(s.setCount).Should(Equal(sent))
		Expect(sending(NewWithT(GinkgoT()))).NotTo(BeEmpty(), "it may be in memory, and that is not forgotten")
		fake.Database().RefusePolicies("", "")
		put(ctx, namespace, policyManifest("base", "policy: {acls: "+rule(443)+"}"))
		Eventually(isReady).WithContext(ctx).Should(HavePrefix("True Ready: "))
		Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(443) + "}"))
		Eventually(sending).WithContext(ctx).Should(BeEmpty())
	})
})

// jsonOf is YAML as JSON.
func jsonOf(text string) string {
	GinkgoHelper()
	converted, err := yaml.YAMLToJSON([]byte(text))
	Expect(err).NotTo(HaveOccurred())
	return string(converted)
}

// refusalWords are Headscale's own.
func refusalWords(err error) string {
	GinkgoHelper()
	var refused *headscale.Refusal
	Expect(errors.As(err, &refused)).To(BeTrue(), "%v", err)
	return refused.Words
}

// newNode makes a node of a new user alice, as a developer of Headscale would.
func (s *server) newNode(ctx context.Context, hs *env.Headscale) {
	GinkgoHelper()
	_, err := s.Direct.CreateUser(ctx, headscale.NewUser{Name: "alice"})
	Expect(err).NotTo(HaveOccurred())
	conn, err := grpc.NewClient("unix:"+hs.SocketPath(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = conn.Close() }()
	stub := v1.NewHeadscaleServiceClient(conn)
	key := fmt.Sprintf("%024d", time.Now().UnixNano())[:24]
	if s.Version == "v0.29.3" {
		key = "hskey-authreq-" + key
	}
	_, err = stub.DebugCreateNode(ctx, &v1.DebugCreateNodeRequest{User: "alice", Key: key, Name: "web"})
	Expect(err).NotTo(HaveOccurred())
	_, err = stub.RegisterNode(ctx, &v1.RegisterNodeRequest{User: "alice", Key: key})
	Expect(err).NotTo(HaveOccurred())
}

// inMemory is the filter that a Headscale has in memory, whatever its database says, by its debugging
// endpoint.
func inMemory(ctx context.Context, hs *env.Headscale) string {
	GinkgoHelper()
	raw, err := os.ReadFile(hs.ConfigPath())
	Expect(err).NotTo(HaveOccurred())
	var config struct {
		MetricsAddress string `json:"metrics_listen_addr"`
	}
	Expect(yaml.Unmarshal(raw, &config)).To(Succeed())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+config.MetricsAddress+"/debug/filter", http.NoBody)
	Expect(err).NotTo(HaveOccurred())
	response, err := http.DefaultClient.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	Expect(response.StatusCode).To(Equal(http.StatusOK), string(body))
	return strings.TrimSpace(string(body))
}
