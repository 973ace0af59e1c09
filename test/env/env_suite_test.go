package env_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

func TestEnv(t *testing.T) {
	RegisterFailHandler(Fail)
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "The test environment")
}

// findServers says where the servers are, which were built before.
func findServers(headscale ...string) serverbuild.Servers {
	GinkgoHelper()
	root, err := serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	servers, err := serverbuild.Find(serverbuild.Options{Root: root, Headscale: headscale})
	Expect(err).NotTo(HaveOccurred())
	return servers
}

// newGuard returns a guard that is closed, and checked, after the spec.
func newGuard() *process.Guard {
	GinkgoHelper()
	guard, err := process.NewGuard("env-test-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		Expect(guard.Close()).To(Succeed())
		Expect(guard.Dir()).NotTo(BeADirectory())
	})
	return guard
}
