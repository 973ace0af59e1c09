package policy

import (
	"path/filepath"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/test/pages"
)

// input is HeadscalePolicies as users might write them.
var input = &instancetest.Input{Cluster: cluster, Kind: v1beta1.KindPolicy, Resource: "headscalepolicies", Name: "policy", Package: "policy"}

var _ = input.DescribeBadInput()

var _ = Describe("Good input", func() {
	DescribeTable("is taken", func(ctx SpecContext, spec string) {
		Expect(input.Create(ctx, newNamespace(ctx), spec)).To(Succeed())
	},
		Entry("with a comment before it", `{headscaleRef: a, hujson: "// of team a\n{\"acls\": []}"}`),
		Entry("with a comment of several lines", `{headscaleRef: a, hujson: "\n/* of\n team a */ {\"acls\": [],}"}`),
		Entry("with spaces before it", `{headscaleRef: a, hujson: " \n\t{\"acls\": []}"}`),
		Entry("of 256 sections", "{headscaleRef: a, policy: {"+strings.Join(sections(256), ", ")+"}}"),
		Entry("of an order of 0", "{headscaleRef: a, order: 0, policy: {acls: []}}"),
		Entry("with what no release knows yet", "{headscaleRef: a, policy: {later: {than: [now]}}}"),
	)
})

// sections are so many sections of a policy in YAML.
func sections(number int) []string {
	all := make([]string, number)
	for i := range all {
		all[i] = strings.Repeat("x", i+1) + ": 1"
	}
	return all
}

// heardWarnings are those of an API server.
type heardWarnings struct {
	lock sync.Mutex
	all  []string
}

func (w *heardWarnings) HandleWarningHeader(_ int, _, text string) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.all = append(w.all, text)
}

// taken are the warnings since the last time.
func (w *heardWarnings) taken() []string {
	w.lock.Lock()
	defer w.lock.Unlock()
	all := w.all
	w.all = nil
	return all
}

var _ = Describe("The admission policy of the page about policies", func() {
	It("warns of a section that is misspelled, and refuses nothing", func(ctx SpecContext) {
		page, err := pages.Read(filepath.Join("..", "..", ".."), filepath.Join("docs", "policy.md"))
		Expect(err).NotTo(HaveOccurred())
		blocks, err := page.Below("A misspelled section", "yaml")
		Expect(err).NotTo(HaveOccurred())
		for _, manifest := range strings.Split(blocks[0], "---\n") {
			object := &unstructured.Unstructured{}
			Expect(yaml.Unmarshal([]byte(manifest), &object.Object)).To(Succeed())
			Expect(admin.Create(ctx, object)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, object)).To(Succeed()) })
		}
		heard := &heardWarnings{}
		config := rest.CopyConfig(cluster.Config)
		config.WarningHandler = heard
		user, err := client.New(config, client.Options{Scheme: cluster.Scheme})
		Expect(err).NotTo(HaveOccurred())
		namespace := newNamespace(ctx)
		warned := func(g Gomega, policy string) []string {
			object := &unstructured.Unstructured{}
			g.Expect(yaml.Unmarshal([]byte(policyManifest("base", policy)), &object.Object)).To(Succeed())
			object.SetNamespace(namespace)
			g.Expect(user.Create(ctx, object, client.DryRunAll)).To(Succeed())
			return heard.taken()
		}
		const words = "is probably meant to be "
		Eventually(func(g Gomega) []string { return warned(g, "policy: {acl: []}") }).Should(ContainElement(HaveSuffix(words + "acls")))
		g := NewWithT(GinkgoT())
		for wrong, right := range map[string]string{"Acl": "acls", "tag_owner": "tagOwners", "Group": "groups", "tagOwner": "tagOwners"} {
			Expect(warned(g, "policy: {acls: [], "+wrong+": {}}")).To(ContainElement(HaveSuffix(words + right)))
		}
		for _, right := range []string{"policy: {acls: [], groups: {}, tagOwners: {}, later: {}}", "policy: {ACLs: [], Groups: {}, tag_owners: {}, SSH-tests: []}", `hujson: '{"acl": []}'`} {
			Expect(warned(g, right)).To(BeEmpty())
		}
	})
})
