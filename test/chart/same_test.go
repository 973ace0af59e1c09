package chart_test

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// sameImages makes the chart use the images of config/default.
const sameImages = `
image: {repository: headscale-operator/operator, tag: latest}
managerImage: {repository: headscale-operator/apikey-manager, tag: latest}
crds: {keep: false}
`

// sameMonitoring asks the chart for what is in config/prometheus.
const sameMonitoring = `{metrics: {podMonitor: {enabled: true}, headscales: {podMonitor: {enabled: true}}, prometheusRule: {enabled: true}}}`

var _ = Describe("The chart and config/default", func() {
	It("install the same objects", func(ctx SpecContext) {
		manifests, err := tool(ctx, "kustomize", "build", filepath.Join(root, "config", "default"))
		Expect(err).NotTo(HaveOccurred())
		ofKustomize := objects(manifests)
		// Helm does not manage the namespace that it installs into.
		delete(ofKustomize, "Namespace "+operatorNamespace)
		manifests, err = render(ctx, "helm4", sameImages)
		Expect(err).NotTo(HaveOccurred())
		ofChart := objects(manifests)
		Expect(slices.Sorted(maps.Keys(ofChart))).To(Equal(slices.Sorted(maps.Keys(ofKustomize))))
		for name, object := range ofKustomize {
			Expect(withoutLabels(ofChart[name])).To(Equal(withoutLabels(object)), name)
		}
	})

	It("have Prometheus watch the same", func(ctx SpecContext) {
		manifests, err := tool(ctx, "kustomize", "build", filepath.Join(root, "config", "prometheus"))
		Expect(err).NotTo(HaveOccurred())
		ofKustomize := objects(manifests)
		rendered, err := render(ctx, "helm4", sameMonitoring)
		Expect(err).NotTo(HaveOccurred())
		ofChart := objects(rendered)
		maps.DeleteFunc(ofChart, func(_ string, object *unstructured.Unstructured) bool {
			return !strings.HasPrefix(object.GetAPIVersion(), "monitoring.coreos.com/")
		})
		Expect(slices.Sorted(maps.Keys(ofChart))).To(Equal(slices.Sorted(maps.Keys(ofKustomize))))
		for name, object := range ofKustomize {
			// By which the operator's pod is known beside the rest: its release.
			unstructured.RemoveNestedField(ofChart[name].Object, "spec", "selector", "matchLabels", "app.kubernetes.io/instance")
			Expect(withoutLabels(ofChart[name])).To(Equal(withoutLabels(object)), name)
		}
		Expect(ofKustomize).To(HaveKey("PrometheusRule " + operatorNamespace + "/headscale-operator-alerts"))
	})

	It("give the same rights in a namespace, where namespaces are named", func(ctx SpecContext) {
		manifests, err := tool(ctx, "kustomize", "build", filepath.Join(root, "config", "namespaced", "rights"))
		Expect(err).NotTo(HaveOccurred())
		rendered, err := render(ctx, "helm4", accepted["some namespaces"])
		Expect(err).NotTo(HaveOccurred())
		ofChart := objects(rendered)
		ofKustomize := objects(manifests)
		Expect(ofKustomize).To(HaveLen(2))
		for name, object := range ofKustomize {
			kind, rest, _ := strings.Cut(name, " ")
			// Which namespace it is is said when the manifests are applied.
			object.SetNamespace("team-a")
			Expect(withoutLabels(ofChart[kind+" team-a/"+path.Base(rest)])).To(Equal(withoutLabels(object)), name)
		}
	})

	It("share the generated files", func() {
		for file, source := range map[string]string{
			"crd.yaml":                  "crd/bases/headscale.infrado.cloud_headscales.yaml",
			"manager-role.yaml":         "rbac/role.yaml",
			"leader-election-role.yaml": "rbac/leader_election_role.yaml",
			"editor-role.yaml":          "rbac/headscale_editor_role.yaml",
			"viewer-role.yaml":          "rbac/headscale_viewer_role.yaml",
			"rules.yaml":                "prometheus/rules.yaml",
		} {
			have, err := os.ReadFile(filepath.Join(chartDir(), "files", file))
			Expect(err).NotTo(HaveOccurred())
			want, err := os.ReadFile(filepath.Join(root, "config", source))
			Expect(err).NotTo(HaveOccurred())
			Expect(string(have)).To(Equal(string(want)), "%s is not current: run hack/sync-chart", file)
		}
	})
})

// withoutLabels drops what is allowed to differ: the labels by which Helm and
// kustomize know what is theirs, but not those that give rights.
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
	for _, path := range [][]string{{"spec", "selector", "matchLabels"}, {"spec", "template", "metadata", "labels"}} {
		if object.GetKind() == "Deployment" {
			unstructured.RemoveNestedField(object.Object, path...)
		}
	}
	return object.Object
}
