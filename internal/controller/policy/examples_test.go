package policy

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/pages"
)

// example is a block of docs/policy.md with HeadscalePolicies.
type example struct {
	manifests, names []string
}

// examples reads those of the page.
func examples() []example {
	page, err := pages.Read(filepath.Join("..", "..", ".."), filepath.Join("docs", "policy.md"))
	Expect(err).NotTo(HaveOccurred())
	var found []example
	for _, block := range page.Blocks {
		if block.Language != "yaml" || !strings.Contains(block.Text, "kind: HeadscalePolicy") {
			continue
		}
		made := example{manifests: strings.Split(block.Text, "---\n")}
		for _, manifest := range made.manifests {
			_, after, _ := strings.Cut(manifest, "  name: ")
			name, _, _ := strings.Cut(after, "\n")
			made.names = append(made.names, name)
		}
		found = append(found, made)
	}
	return found
}

// refusedExamples are those that a release refuses, with its words. The page says so.
var refusedExamples = map[string]map[string]string{
	"v0.26.1": {"own-devices": "autogroup:self"},
}

var _ = Describe("The examples of the page about policies", func() {
	for _, version := range releases {
		It("are accepted by Headscale "+version, func(ctx SpecContext) {
			all := examples()
			Expect(len(all)).To(BeNumerically(">=", 7))
			for _, e := range all {
				tryExample(ctx, version, e)
			}
		})
	}
})

// tryExample has a Headscale with two users, and nothing else, take an example.
func tryExample(ctx context.Context, version string, e example) {
	GinkgoHelper()
	hs := startHeadscale(ctx, version)
	namespace := newNamespace(ctx)
	s := newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath()))
	for _, name := range []string{"alice", "bob"} {
		_, err := s.Direct.CreateUser(ctx, headscale.NewUser{Name: name})
		Expect(err).NotTo(HaveOccurred())
	}
	stop := startOperator(namespace)
	for _, manifest := range e.manifests {
		put(ctx, namespace, manifest)
	}
	for _, name := range e.names {
		if words := refusedExamples[version][name]; words != "" {
			Eventually(condition(ctx, namespace, name)).WithContext(ctx).Should(And(HavePrefix("False Refused: "), ContainSubstring(words)))
			continue
		}
		Eventually(condition(ctx, namespace, name)).WithContext(ctx).Should(HavePrefix("True Ready: "), name)
	}
	if len(e.names) > 1 {
		text := inForceText(ctx, s)
		Expect(slices.IsSorted([]int{strings.Index(text, e.names[0]), strings.Index(text, e.names[1])})).To(BeTrue())
	}
	stop()
	Expect(hs.Stop()).To(Succeed())
	Expect(admin.DeleteAllOf(ctx, &v1beta1.HeadscalePolicy{}, client.InNamespace(namespace))).To(Succeed())
}

// inForceText is the policy that a Headscale has, as it was set.
func inForceText(ctx context.Context, s *server) string {
	GinkgoHelper()
	policy, err := s.Direct.GetPolicy(ctx)
	Expect(err).NotTo(HaveOccurred())
	return policy.Text
}
