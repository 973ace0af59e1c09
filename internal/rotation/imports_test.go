package rotation

import (
	"os/exec"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// The protocol knows no kind of credential and no client of Kubernetes.
func TestItDoesWithoutClientsAndOtherInternalPackages(t *testing.T) {
	g := NewWithT(t)
	output, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	g.Expect(err).NotTo(HaveOccurred())
	const module = "infrado.cloud/headscale-operator/"
	packages := strings.Fields(string(output))
	g.Expect(packages).To(ContainElement(module + "internal/rotation"))
	for _, found := range packages {
		if found != module+"internal/rotation" {
			g.Expect(found).NotTo(HavePrefix(module + "internal/"))
		}
		g.Expect(found).NotTo(HavePrefix("k8s.io/client-go"))
		g.Expect(found).NotTo(HavePrefix("sigs.k8s.io/controller-runtime"))
	}
}
