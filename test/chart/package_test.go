package chart_test

import (
	"os"
	"os/exec"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"
)

// managerDigest is another digest than the operator's.
const managerDigest = "sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

var _ = Describe("The chart of a release", Ordered, func() {
	var archive string

	BeforeAll(func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		command := exec.CommandContext(ctx, filepath.Join(root, "hack", "package-chart"), "v1.2.3", "registry.example.com/a-fork", digest, managerDigest)
		command.Env = append(os.Environ(), "HELM=bin/helm4", "DIST="+dir)
		said, err := command.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(said))
		archive = filepath.Join(dir, "headscale-operator-1.2.3.tgz")
	})

	for name, test := range map[string]struct{ values, operator, manager string }{
		"its own images": {"", "registry.example.com/a-fork/operator:v1.2.3@" + digest, "registry.example.com/a-fork/apikey-manager:v1.2.3@" + managerDigest},
		"older tags":     {"{image: {tag: v1}, managerImage: {tag: v0}}", "registry.example.com/a-fork/operator:v1", "registry.example.com/a-fork/apikey-manager:v0"},
		"a mirror":       {"{image: {repository: mirror/o}, managerImage: {repository: mirror/m}}", "mirror/o:v1.2.3", "mirror/m:v1.2.3"},
		"other digests":  {"{image: {digest: '" + managerDigest + "'}}", "registry.example.com/a-fork/operator@" + managerDigest, "registry.example.com/a-fork/apikey-manager:v1.2.3@" + managerDigest},
	} {
		It("names images by their digests unless told otherwise: "+name, func(ctx SpecContext) {
			for _, helm := range helms {
				manifests, err := renderChart(ctx, helm, archive, test.values)
				Expect(err).NotTo(HaveOccurred())
				container := containerOf(objects(manifests))
				Expect(container["image"]).To(Equal(test.operator))
				Expect(container["env"]).To(HaveExactElements(map[string]any{"name": "MANAGER_IMAGE", "value": test.manager}))
			}
		})
	}

	It("says to Artifact Hub which images it has", func(ctx SpecContext) {
		shown, err := exec.CommandContext(ctx, filepath.Join(root, "bin", "helm4"), "show", "chart", archive).Output()
		Expect(err).NotTo(HaveOccurred())
		var chart chartFile
		Expect(yaml.Unmarshal(shown, &chart)).To(Succeed())
		Expect(annotation[[]hubEntry](Default, chart, "images")).To(HaveExactElements(
			HaveField("Image", "registry.example.com/a-fork/operator:v1.2.3@"+digest), HaveField("Image", "registry.example.com/a-fork/apikey-manager:v1.2.3@"+managerDigest)))
	})

	It("is not made without digests", func(ctx SpecContext) {
		command := exec.CommandContext(ctx, filepath.Join(root, "hack", "package-chart"), "v1.2.3", "registry.example.com/a-fork", "", managerDigest)
		command.Env = append(os.Environ(), "HELM=bin/helm4", "DIST="+GinkgoT().TempDir())
		Expect(command.Run()).NotTo(Succeed())
	})
})

var _ = Describe("The chart in another chart", func() {
	for _, helm := range helms {
		It("is switched on and off by its condition with "+helm, func(ctx SpecContext) {
			parent := GinkgoT().TempDir()
			Expect(os.MkdirAll(filepath.Join(parent, "charts"), 0o755)).To(Succeed())
			Expect(os.CopyFS(filepath.Join(parent, "charts", "headscale-operator"), os.DirFS(chartDir()))).To(Succeed())
			Expect(os.WriteFile(filepath.Join(parent, "Chart.yaml"), []byte(
				"apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies: [{name: headscale-operator, version: '*', condition: headscale-operator.enabled}]\n"), 0o600)).To(Succeed())
			manifests, err := renderChart(ctx, helm, parent, "{headscale-operator: {enabled: true}}")
			Expect(err).NotTo(HaveOccurred())
			Expect(objects(manifests)).To(HaveKey(deploymentName))
			manifests, err = renderChart(ctx, helm, parent, "{headscale-operator: {enabled: false}}")
			Expect(err).NotTo(HaveOccurred())
			Expect(objects(manifests)).To(BeEmpty())
		})
	}
})
