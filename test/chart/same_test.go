package chart_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// counterparts are values of the chart, each with what makes the same of the manifests:
// directories below config, of which all but the first are components of it, or the list of
// namespaces for hack/render-installer.
var counterparts = map[string]struct{ values, directory, namespaces string }{
	"all namespaces":  {values: `{crds: {keep: false}}`, directory: "default"},
	"one namespace":   {values: `{crds: {keep: false}, watchNamespaces: [default]}`, directory: "namespaced"},
	"some namespaces": {values: `{crds: {keep: false}, watchNamespaces: [team-a, team-b]}`, namespaces: "team-a,team-b"},
	"a single file":   {values: `{crds: {keep: false}}`},
	"plain HTTP":      {values: `{crds: {keep: false}, metrics: {secure: false}}`, directory: "default metrics-http"},
	"plain HTTP, and one namespace": {
		values: `{crds: {keep: false}, watchNamespaces: [default], metrics: {secure: false}}`, directory: "namespaced metrics-http",
	},
	"a certificate":    {values: `{crds: {keep: false}, metrics: {certificate: {secretName: metrics-server-cert}}}`, directory: "default metrics-certificate"},
	"a network policy": {values: `{crds: {keep: false}, networkPolicy: {enabled: true}}`, directory: "default network-policy"},
}

// sameMonitoring asks the chart for what is in config/prometheus, alone and beside a component
// for config/default.
var sameMonitoring = map[string]string{
	"prometheus":                     `{` + monitors + `}}`,
	"prometheus metrics-http":        `{` + monitors + `, secure: false}}`,
	"prometheus metrics-certificate": `{` + monitors + `, certificate: {secretName: metrics-server-cert}}}`,
}

// monitors are values for what is in config/prometheus, which are to be closed.
const monitors = `metrics: {serviceMonitor: {enabled: true}, headscales: {podMonitor: {enabled: true}}, prometheusRule: {enabled: true}`

// manifests are the objects of config/ that are the counterpart of the chart's.
func manifests(ctx context.Context, directory, namespaces string) map[string]*unstructured.Unstructured {
	GinkgoHelper()
	if directory != "" {
		return objects(kustomize(ctx, directory))
	}
	return objects(renderInstaller(ctx, releasedImages["operator"], releasedImages["apikey-manager"], namespaces))
}

// kustomize builds a directory below config with components: the names, with spaces between them.
func kustomize(ctx context.Context, directories string) string {
	GinkgoHelper()
	dir, names := GinkgoT().TempDir(), strings.Fields(directories)
	var text strings.Builder
	text.WriteString("resources: [" + below(dir, names[0]) + "]\ncomponents:\n")
	for _, component := range names[1:] {
		text.WriteString("- " + below(dir, component) + "\n")
	}
	Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text.String()), 0o600)).To(Succeed())
	printed, err := tool(ctx, "kustomize", "build", dir)
	Expect(err).NotTo(HaveOccurred())
	return printed
}

// below is the path of a directory below config, from another one: kustomize takes no other.
func below(from, directory string) string {
	GinkgoHelper()
	relative, err := filepath.Rel(from, filepath.Join(root, "config", directory))
	Expect(err).NotTo(HaveOccurred())
	return relative
}

// releasedImages are the images that the chart and config/ name.
var releasedImages = map[string]string{
	"operator":       "ghcr.io/infrado/headscale-operator/operator:v0.1.0",
	"apikey-manager": "ghcr.io/infrado/headscale-operator/apikey-manager:v0.1.0",
}

// renderInstaller is what hack/render-installer prints.
func renderInstaller(ctx context.Context, operator, manager, namespaces string) string {
	GinkgoHelper()
	command := exec.CommandContext(ctx, filepath.Join(root, "hack", "render-installer"))
	command.Env = append(os.Environ(), "KUSTOMIZE=bin/kustomize", "IMG="+operator, "APIKEY_MANAGER_IMG="+manager, "WATCH_NAMESPACES="+namespaces)
	command.Stderr = GinkgoWriter
	printed, err := command.Output()
	Expect(err).NotTo(HaveOccurred())
	return string(printed)
}

var _ = Describe("The chart and the manifests in config/", func() {
	for name, test := range counterparts {
		It("install the same objects: "+name, func(ctx SpecContext) {
			ofKustomize := manifests(ctx, test.directory, test.namespaces)
			// Helm does not manage the namespace that it installs into.
			delete(ofKustomize, "Namespace "+operatorNamespace)
			if strings.HasPrefix(test.directory, "namespaced") {
				addRights(ctx, ofKustomize, "default")
			}
			rendered, err := render(ctx, "helm4", test.values)
			Expect(err).NotTo(HaveOccurred())
			ofChart := objects(rendered)
			Expect(slices.Sorted(maps.Keys(ofChart))).To(Equal(slices.Sorted(maps.Keys(ofKustomize))))
			for name, object := range ofKustomize {
				Expect(withoutLabels(ofChart[name])).To(Equal(withoutLabels(object)), name)
			}
		})
	}

	It("change both images where an overlay names them, also on top of another", func(ctx SpecContext) {
		for _, base := range []string{"default", "namespaced"} {
			dir := GinkgoT().TempDir()
			relative := below(filepath.Join(dir, "first"), base)
			overlay := strings.Replace(documented("yaml", "With kustomize")[0], "https://github.com/infrado/headscale-operator//config/default?ref=v0.1.0", relative, 1)
			Expect(overlay).To(ContainSubstring(relative))
			for layer, kustomization := range map[string]string{
				"first":  overlay,
				"second": "resources: [../first]\nimages: [{name: registry.example.com/apikey-manager, digest: \"" + digest + "\"}]\n",
			} {
				Expect(os.Mkdir(filepath.Join(dir, layer), 0o755)).To(Succeed())
				Expect(os.WriteFile(filepath.Join(dir, layer, "kustomization.yaml"), []byte(kustomization), 0o600)).To(Succeed())
			}
			for layer, manager := range map[string]string{"first": "registry.example.com/apikey-manager:v0.1.0", "second": "registry.example.com/apikey-manager@" + digest} {
				printed, err := tool(ctx, "kustomize", "build", filepath.Join(dir, layer))
				Expect(err).NotTo(HaveOccurred())
				container := containerOf(objects(printed))
				Expect(container["image"]).To(Equal("registry.example.com/headscale-operator:v0.1.0"))
				Expect(container["env"]).To(ContainElement(map[string]any{"name": "MANAGER_IMAGE", "value": manager}))
				Expect(printed).NotTo(ContainSubstring("ghcr.io"))
			}
		}
	})

	for directory, values := range sameMonitoring {
		It("have Prometheus watch the same: "+directory, func(ctx SpecContext) {
			ofKustomize := objects(kustomize(ctx, directory))
			rendered, err := render(ctx, "helm4", values)
			Expect(err).NotTo(HaveOccurred())
			ofChart := objects(rendered)
			maps.DeleteFunc(ofChart, func(_ string, object *unstructured.Unstructured) bool {
				return object.GetKind() != "Service" && !strings.HasPrefix(object.GetAPIVersion(), "monitoring.coreos.com/")
			})
			Expect(slices.Sorted(maps.Keys(ofChart))).To(Equal(slices.Sorted(maps.Keys(ofKustomize))))
			for name, object := range ofKustomize {
				// By which the operator's pod is known beside the rest: its release.
				unstructured.RemoveNestedField(ofChart[name].Object, "spec", "selector", "matchLabels", "app.kubernetes.io/instance")
				unstructured.RemoveNestedField(ofChart[name].Object, "spec", "selector", "app.kubernetes.io/instance")
				Expect(withoutLabels(ofChart[name])).To(Equal(withoutLabels(object)), name)
			}
			Expect(ofKustomize).To(HaveKey("PrometheusRule " + operatorNamespace + "/headscale-operator-alerts"))
		})
	}

	It("are refused where a namespace cannot be one", func(ctx SpecContext) {
		command := exec.CommandContext(ctx, filepath.Join(root, "hack", "render-installer"))
		command.Env = append(os.Environ(), "KUSTOMIZE=bin/kustomize", "IMG=a/b:v1", "APIKEY_MANAGER_IMG=a/c:v1", "WATCH_NAMESPACES=team-a,../b")
		said, err := command.CombinedOutput()
		Expect(err).To(HaveOccurred())
		Expect(string(said)).To(Equal("WATCH_NAMESPACES has \"../b\", which is not the name of a namespace: write names with commas between them, such as team-a,team-b\n"))
	})

	It("share the generated files", func() {
		sources := map[string]string{
			"manager-role.yaml":         "rbac/role.yaml",
			"leader-election-role.yaml": "rbac/leader_election_role.yaml",
			"metrics-auth-role.yaml":    "rbac/metrics_auth_role.yaml",
			"metrics-reader-role.yaml":  "rbac/metrics_reader_role.yaml",
			"rules.yaml":                "prometheus/rules.yaml",
			"admission-policies.yaml":   "admission-policy/policies.yaml",
		}
		for pattern, directory := range map[string]string{"crd/bases/*.yaml": "crds", "rbac/*_editor_role.yaml": "user-roles", "rbac/*_viewer_role.yaml": "user-roles"} {
			files, err := filepath.Glob(filepath.Join(root, "config", pattern))
			Expect(err).NotTo(HaveOccurred())
			Expect(files).NotTo(BeEmpty(), pattern)
			for _, file := range files {
				sources[filepath.Join(directory, filepath.Base(file))] = filepath.Join(filepath.Dir(pattern), filepath.Base(file))
			}
		}
		for file, source := range sources {
			have, err := os.ReadFile(filepath.Join(chartDir(), "files", file))
			Expect(err).NotTo(HaveOccurred())
			want, err := os.ReadFile(filepath.Join(root, "config", source))
			Expect(err).NotTo(HaveOccurred())
			Expect(string(have)).To(Equal(string(want)), "%s is not current: run hack/sync-chart", file)
		}
	})
})

// addRights adds what config/namespaced/rights gives in a namespace.
func addRights(ctx context.Context, to map[string]*unstructured.Unstructured, namespace string) {
	GinkgoHelper()
	printed, err := tool(ctx, "kustomize", "build", filepath.Join(root, "config", "namespaced", "rights"))
	Expect(err).NotTo(HaveOccurred())
	rights := objects(printed)
	Expect(rights).To(HaveLen(2))
	for _, object := range rights {
		// Which namespace it is is said when the manifests are applied.
		object.SetNamespace(namespace)
		to[object.GetKind()+" "+namespace+"/"+object.GetName()] = object
	}
}

// withoutLabels drops what is allowed to differ: the labels by which Helm and
// kustomize know what is theirs, but not those that give rights; what a release adds to the
// labels by which a Deployment knows its pods; and the order of environment variables.
func withoutLabels(object *unstructured.Unstructured) map[string]any {
	object = object.DeepCopy()
	labels := object.GetLabels()
	maps.DeleteFunc(labels, func(key, _ string) bool {
		return key == "helm.sh/chart" || strings.HasPrefix(key, "app.kubernetes.io/")
	})
	if len(labels) == 0 {
		labels = nil
	}
	object.SetLabels(labels)
	if object.GetKind() == "NetworkPolicy" {
		unstructured.RemoveNestedField(object.Object, "spec", "podSelector", "matchLabels", "app.kubernetes.io/instance")
	}
	if object.GetKind() == "Deployment" {
		for _, path := range [][]string{{"spec", "selector", "matchLabels"}, {"spec", "template", "metadata", "labels"}} {
			unstructured.RemoveNestedField(object.Object, append(path, "app.kubernetes.io/instance")...)
		}
		variables, _ := containerOf(map[string]*unstructured.Unstructured{deploymentName: object})["env"].([]any)
		Expect(variables).NotTo(BeEmpty())
		slices.SortFunc(variables, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return object.Object
}
