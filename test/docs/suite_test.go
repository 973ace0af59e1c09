package docs_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/pages"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// What all pages share.
var (
	root     string
	allPages []pages.Page
	world    *env.World
	guard    *process.Guard
	plane    *env.ControlPlane
	admin    client.Client
	node     = &nodes{pods: map[client.ObjectKey]*runningPod{}}
)

// pluginName is the program that kubectl runs as kubectl headscale.
const pluginName = "kubectl-headscale"

func TestDocs(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(2 * time.Minute)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	log.SetLogger(GinkgoLogr)
	var err error
	if root, err = serverbuild.FindRoot(); err != nil {
		t.Fatal(err)
	}
	if allPages, err = pages.ReadAll(root); err != nil {
		t.Fatal(err)
	}
	describePages()
	RunSpecs(t, "The documentation")
}

// startWorld starts what the commands of the pages run against.
func startWorld(ctx SpecContext) {
	var err error
	world, err = env.StartWorld(ctx, "hs-docs-", GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return world.Close() })
	guard, plane, admin = world.Guard, world.Plane, world.Admin
	Expect(serverbuild.BuildProgram(ctx, root, "./cmd/"+pluginName, filepath.Join(guard.Dir(), pluginName), GinkgoWriter)).To(Succeed())

	following, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		node.follow(following)
	}()
	DeferCleanup(func() {
		stop()
		Eventually(stopped).Should(BeClosed())
	})
}
