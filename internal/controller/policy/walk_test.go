package policy

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// volume is the data of a Headscale, on which several start one after the other.
type volume struct {
	dir, policyFile string
	built           serverbuild.Servers
}

// newVolume makes one with a policy file.
func newVolume(policy string) *volume {
	GinkgoHelper()
	root, err := serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	v := &volume{}
	v.built, err = serverbuild.Find(serverbuild.Options{Root: root, Headscale: releases})
	Expect(err).NotTo(HaveOccurred())
	v.dir, err = os.MkdirTemp(cluster.Guard.Dir(), "v-")
	Expect(err).NotTo(HaveOccurred())
	v.policyFile = filepath.Join(v.dir, "policy.hujson")
	v.write(policy)
	return v
}

// write replaces the policy file.
func (v *volume) write(policy string) {
	GinkgoHelper()
	Expect(os.WriteFile(v.policyFile, []byte(policy), 0o600)).To(Succeed())
}

// options are those of a Headscale on the volume, that reads its policy from the file or from its
// database.
func (v *volume) options(version, mode string) env.HeadscaleOptions {
	policy := map[string]any{"mode": mode}
	if mode == "file" {
		policy["path"] = v.policyFile
	}
	return env.HeadscaleOptions{Binary: v.built.Headscale[version], Guard: cluster.Guard, Dir: v.dir, Output: GinkgoWriter, Config: map[string]any{"policy": policy}}
}

// start starts a Headscale on the volume.
func (v *volume) start(ctx context.Context, version, mode string) *env.Headscale {
	GinkgoHelper()
	hs, err := env.StartHeadscale(ctx, v.options(version, mode))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(hs.Stop)
	return hs
}

// command runs the command of the page about policies, which writes the file into the database.
func (v *volume) command(ctx context.Context, hs *env.Headscale) {
	GinkgoHelper()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "policy.md"))
	Expect(err).NotTo(HaveOccurred())
	_, after, found := strings.Cut(string(page), "-c headscale -- headscale ")
	Expect(found).To(BeTrue())
	text, _, _ := strings.Cut(after, "```")
	arguments := strings.Fields(strings.ReplaceAll(strings.ReplaceAll(text, "\\\n", " "), "/etc/headscale-files/policy.hujson", v.policyFile))
	command := exec.CommandContext(ctx, hs.Binary, append(arguments, "--config", hs.ConfigPath())...)
	command.Env = append(os.Environ(), "HOME="+v.dir)
	output, err := command.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(output))
}

// watchOpen asks a Headscale for its policy all the time, and returns what it had been whenever it
// answered, and how often that was none.
func watchOpen(s *server) (stop func() (seen map[string]int)) {
	seen := map[string]int{}
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			answer, err := s.Direct.GetPolicy(ctx)
			switch {
			case errors.Is(err, headscale.ErrNoPolicy):
				seen[""]++
			case err == nil:
				seen[strings.TrimSpace(answer.Text)]++
			}
		}
	})
	stop = func() map[string]int {
		cancel()
		asking.Wait()
		return seen
	}
	DeferCleanup(stop)
	return stop
}

var _ = Describe("The way from a file to HeadscalePolicies", func() {
	for _, version := range []string{"v0.27.1", "v0.28.0", "v0.29.3"} {
		It("has no moment without a policy, with Headscale "+version, func(ctx SpecContext) {
			text := "// of the file\n{" + rules(22) + "}"
			v := newVolume(text)
			hs := v.start(ctx, version, "file")
			namespace := newNamespace(ctx)
			s := newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath()))
			const manifest = "{apiVersion: headscale.infrado.cloud/v1beta1, kind: Headscale, metadata: {name: headscale}, spec: {version: "
			put(ctx, namespace, manifest+version+", config: {server_url: http://headscale.example}, files: {policy: {config_map: {name: policy, key: policy.hujson}}}}}")
			stopWatch := watchOpen(s)
			startOperator(namespace)
			put(ctx, namespace, policyManifest("all", `hujson: '{`+rules(22)+`}'`))
			Eventually(condition(ctx, namespace, "all")).WithContext(ctx).Should(HavePrefix("False Conflict: "))

			v.command(ctx, hs)
			put(ctx, namespace, manifest+version+", config: {server_url: http://headscale.example, policy: {mode: database}}}}")
			Expect(hs.Stop()).To(Succeed())
			v.start(ctx, version, "database")
			Eventually(condition(ctx, namespace, "all")).WithContext(ctx).Should(HavePrefix("True Ready: "))
			Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(22) + "}"))
			Expect(s.setCount()).To(BeZero(), "it is never sent, since it is there")
			put(ctx, namespace, policyManifest("all", `hujson: '{`+rules(23)+`}'`))
			Eventually(s.inForce(ctx)).WithContext(ctx).Should(Equal("{" + rules(23) + "}"))
			seen := stopWatch()
			Expect(seen).NotTo(HaveKey(""))
			Expect(seen[text]).To(BeNumerically(">", 0))
			for policy := range seen {
				Expect(policy).To(Or(ContainSubstring(`"*:22"`), ContainSubstring(`"*:23"`)))
			}
		})
	}
})

// The pod that still runs answers with its file, and refuses whatever is sent. That says nothing about
// what the one that replaces it takes.
var _ = Describe("A switch from a file to the database", func() {
	for _, version := range []string{"v0.26.1", "v0.29.3"} {
		It("has the new pod sent the policy at once, though the old one was asked, with Headscale "+version, func(ctx SpecContext) {
			v := newVolume("{" + rules(22) + "}")
			hs := v.start(ctx, version, "file")
			namespace := newNamespace(ctx)
			s := newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath()))
			startOperator(namespace)
			put(ctx, namespace, policyManifest("all", `hujson: '{`+rules(23)+`}'`))
			Eventually(condition(ctx, namespace, "all")).WithContext(ctx).Should(HavePrefix("False PolicyMode: The pod of Headscale headscale that runs still reads"))
			Eventually(func(g Gomega) string { return get(ctx, namespace, "all")(g).Status.SendingDigest }).WithContext(ctx).Should(BeEmpty())
			Expect(hs.Stop()).To(Succeed())
			v.start(ctx, version, "database")
			Eventually(condition(ctx, namespace, "all")).WithContext(ctx).WithTimeout(time.Minute).Should(HavePrefix("True Ready: "))
			Expect(s.inForce(ctx)(NewWithT(GinkgoT()))).To(Equal("{" + rules(23) + "}"))
		})
	}
})

// A stored policy that a newer release finds invalid keeps it from starting.
var _ = Describe("The way back from a stored policy that a release refuses", func() {
	It("is a file", func(ctx SpecContext) {
		const digits = `{"tagOwners": {"tag:1web": ["alice@"]}, "acls": [{"action": "accept", "src": ["alice@"], "dst": ["tag:1web:443"]}]}`
		v := newVolume("")
		hs := v.start(ctx, "v0.28.0", "database")
		direct := headscale.NewClient(headscale.UnixSocket(hs.SocketPath()))
		DeferCleanup(direct.Close)
		_, err := direct.CreateUser(ctx, headscale.NewUser{Name: "alice"})
		Expect(err).NotTo(HaveOccurred())
		_, err = direct.SetPolicy(ctx, digits)
		Expect(err).NotTo(HaveOccurred())
		Expect(hs.Stop()).To(Succeed())

		words, err := env.RefuseConfig(ctx, v.options("v0.29.3", "database"))
		Expect(err).NotTo(HaveOccurred())
		Expect(words).To(And(ContainSubstring("initializing policy manager: parsing policy"), ContainSubstring("tag names must start with a letter")))

		mended := strings.ReplaceAll(digits, "1web", "web")
		v.write(mended)
		hs = v.start(ctx, "v0.29.3", "file")
		v.command(ctx, hs)
		Expect(hs.Stop()).To(Succeed())
		v.start(ctx, "v0.29.3", "database")
		Eventually(func(g Gomega) {
			stored, err := direct.GetPolicy(ctx)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(stored.Text).To(Equal(mended))
		}).WithContext(ctx).Should(Succeed())
		users, err := direct.ListUsers(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(users).To(HaveLen(1), "nothing else is lost")
	})
})
