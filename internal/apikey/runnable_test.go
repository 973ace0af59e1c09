package apikey_test

import (
	"os/exec"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"infrado.cloud/headscale-operator/internal/apikey"
)

// Both are Runnables for a program that has a controller-runtime manager.
var (
	_ manager.Runnable = (*apikey.Manager)(nil)
	_ manager.Runnable = (*apikey.Endpoint)(nil)
)

// The sidecar is to stay small, and these are large.
func TestTheSidecarDoesWithoutTheLargeLibraries(t *testing.T) {
	g := NewWithT(t)
	command := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags=grpcnotrace", "../../cmd/apikey-manager")
	output, err := command.Output()
	g.Expect(err).NotTo(HaveOccurred())
	packages := strings.Fields(string(output))
	g.Expect(packages).To(ContainElement("infrado.cloud/headscale-operator/internal/apikey"))
	for _, large := range []string{
		"sigs.k8s.io/controller-runtime", "k8s.io/client-go/kubernetes", "k8s.io/client-go/informers",
		// With one of these the linker must keep every method of every type.
		"text/template", "html/template", "golang.org/x/net/trace",
	} {
		for _, found := range packages {
			g.Expect(found == large || strings.HasPrefix(found, large+"/")).To(BeFalse(), found)
		}
	}
}
