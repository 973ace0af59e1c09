package integration_test

import (
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// What all specs share. Each has a namespace of its own.
var (
	world    *env.World
	root     string
	guard    *process.Guard
	servers  serverbuild.Servers
	binaries env.Binaries
	plane    *env.ControlPlane
	admin    client.Client
)

func TestIntegration(t *testing.T) {
	RegisterFailHandler(Fail)
	// A Headscale takes about a second to start, and minutes on a machine that
	// builds other things at the same time.
	SetDefaultEventuallyTimeout(2 * time.Minute)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "The operator and the API Key Manager with real servers")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	started, err := env.StartWorld(ctx, "hs-int-", GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(started.Close)
	use(started)
})

// use has all specs use a world.
func use(w *env.World) {
	world, root, guard, servers, binaries = w, w.Root, w.Guard, w.Servers, w.Binaries
	plane, admin = w.Plane, w.Admin
}
