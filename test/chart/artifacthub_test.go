package chart_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/test/serverbuild"
)

// chartFile is what Artifact Hub reads of Chart.yaml.
type chartFile struct {
	AppVersion  string            `json:"appVersion"`
	Annotations map[string]string `json:"annotations"`
}

// hubEntry is an entry of one of its lists.
type hubEntry struct {
	Kind        string   `json:"kind"`
	Version     string   `json:"version"`
	Name        string   `json:"name"`
	DisplayName string   `json:"displayName"`
	Description string   `json:"description"`
	Image       string   `json:"image"`
	Platforms   []string `json:"platforms"`
	URL         string   `json:"url"`
}

// annotation decodes a list, of which the fields are known.
func annotation[T any](g Gomega, chart chartFile, name string) (list T) {
	g.Expect(yaml.UnmarshalStrict([]byte(chart.Annotations["artifacthub.io/"+name]), &list)).To(Succeed(), name)
	return list
}

func readYAML(g Gomega, path string, into any) {
	content, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(yaml.Unmarshal(content, into)).To(Succeed(), path)
}

func TestAnnotationsForArtifactHub(t *testing.T) {
	g := NewWithT(t)
	root, err := serverbuild.FindRoot()
	g.Expect(err).NotTo(HaveOccurred())
	var chart chartFile
	readYAML(g, filepath.Join(root, "charts", "headscale-operator", "Chart.yaml"), &chart)

	files, err := filepath.Glob(filepath.Join(root, "config", "crd", "bases", "*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	var kinds []any
	for _, file := range files {
		var definition apiextensionsv1.CustomResourceDefinition
		readYAML(g, file, &definition)
		for i := range definition.Spec.Versions {
			kinds = append(kinds, And(
				HaveField("Kind", definition.Spec.Names.Kind), HaveField("Name", definition.Name), HaveField("Version", definition.Spec.Versions[i].Name),
				HaveField("DisplayName", Not(BeEmpty())), HaveField("Description", Not(BeEmpty()))))
		}
	}
	g.Expect(kinds).NotTo(BeEmpty())
	g.Expect(annotation[[]hubEntry](g, chart, "crds")).To(ConsistOf(kinds...))

	samples, err := filepath.Glob(filepath.Join(root, "config", "samples", "headscale_*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	var examples []any
	for _, file := range samples {
		var sample map[string]any
		readYAML(g, file, &sample)
		text, err := json.Marshal(sample)
		g.Expect(err).NotTo(HaveOccurred())
		examples = append(examples, WithTransform(func(example map[string]any) ([]byte, error) { return json.Marshal(example) }, MatchJSON(text)))
	}
	g.Expect(examples).To(HaveLen(len(files)), "a sample of each kind")
	g.Expect(annotation[[]map[string]any](g, chart, "crdsExamples")).To(ConsistOf(examples...))

	g.Expect(annotation[[]hubEntry](g, chart, "images")).To(ConsistOf(
		HaveField("Image", "ghcr.io/infrado/headscale-operator/operator:"+chart.AppVersion), HaveField("Image", "ghcr.io/infrado/headscale-operator/apikey-manager:"+chart.AppVersion)))
	g.Expect(annotation[[]hubEntry](g, chart, "links")).To(And(Not(BeEmpty()), HaveEach(HaveField("URL", HavePrefix("https://")))))
	g.Expect(annotation[[]hubEntry](g, chart, "changes")).To(And(Not(BeEmpty()), HaveEach(And(
		HaveField("Kind", BeElementOf("added", "changed", "deprecated", "removed", "fixed", "security")), HaveField("Description", Not(BeEmpty()))))))
}
