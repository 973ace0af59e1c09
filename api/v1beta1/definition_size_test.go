package v1beta1_test

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"
)

// annotationLimit is how large all annotations of an object may be together, in bytes:
// TotalAnnotationSizeLimitB in k8s.io/apimachinery/pkg/api/validation. kubectl apply
// without --server-side puts the whole object into one.
const annotationLimit = 256 << 10

func TestDefinitionCanBeAppliedByTheClient(t *testing.T) {
	g := NewWithT(t)
	text, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "headscale.infrado.cloud_headscales.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	raw, err := yaml.YAMLToJSON(text)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(len(raw)).To(BeNumerically("<", annotationLimit*3/4), "leave some room to grow")
}
