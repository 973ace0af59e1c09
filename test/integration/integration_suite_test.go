package integration_test

import (
	"context"
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
	use(startWorld(ctx, "hs-int-"))
})

// unelected has an operator work without a Lease. With one it would end where the API server did not
// answer for ten seconds, and wait for that of one that was killed.
const unelected = "--leader-elect=false"

// startWorld starts all that a World has, until the end of the spec, or of what it is called before.
func startWorld(ctx context.Context, prefix string) *env.World {
	GinkgoHelper()
	started, err := env.NewWorld(prefix, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(started.Close)
	Expect(started.Build(ctx, GinkgoWriter)).To(Succeed())
	Expect(started.StartPlane(nil)).To(Succeed())
	Expect(started.StartOperator(ctx, unelected)).To(Succeed())
	return started
}

// use has all specs use a world.
func use(w *env.World) {
	world, root, guard, servers, binaries = w, w.Root, w.Guard, w.Servers, w.Binaries
	plane, admin = w.Plane, w.Admin
}
