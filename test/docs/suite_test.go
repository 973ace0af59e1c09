package docs_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// What all pages share.
var (
	root     string
	pages    []page
	guard    *process.Guard
	servers  serverbuild.Servers
	binaries env.Binaries
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
	if pages, err = readPages(root); err != nil {
		t.Fatal(err)
	}
	describePages()
	RunSpecs(t, "The documentation")
}

// startWorld starts what the commands of the pages run against.
func startWorld(ctx SpecContext) {
	versions, err := serverbuild.HeadscaleVersions(root)
	Expect(err).NotTo(HaveOccurred())
	servers, err = serverbuild.Find(serverbuild.Options{Root: root, Headscale: versions})
	Expect(err).NotTo(HaveOccurred())
	guard, err = process.NewGuard("hs-docs-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return guard.Close() })
	binaries, err = env.BuildBinaries(ctx, root, guard.Dir(), GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	Expect(serverbuild.BuildProgram(ctx, root, "./cmd/"+pluginName, filepath.Join(guard.Dir(), pluginName), GinkgoWriter)).To(Succeed())
	plane, err = env.StartControlPlane(env.ControlPlaneOptions{Servers: servers, Guard: guard})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return plane.Stop() })

	scheme := runtime.NewScheme()
	Expect(errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme))).To(Succeed())
	admin, err = client.New(plane.Config(), client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	Expect(plane.InstallOperator(ctx, root)).To(Succeed())
	operator, err := env.StartOperator(ctx, env.OperatorOptions{
		Binary: binaries.Operator, ControlPlane: plane, Admin: admin, Guard: guard, Output: GinkgoWriter,
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return operator.Stop() })

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
