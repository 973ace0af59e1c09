package integration_test

import (
	"errors"
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

// What all specs share. Each has a namespace of its own.
var (
	root     string
	guard    *process.Guard
	servers  serverbuild.Servers
	binaries env.Binaries
	plane    *env.ControlPlane
	admin    client.Client
	operator *env.Operator
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
	var err error
	root, err = serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	versions, err := serverbuild.HeadscaleVersions(root)
	Expect(err).NotTo(HaveOccurred())
	servers, err = serverbuild.Find(serverbuild.Options{Root: root, Headscale: versions})
	Expect(err).NotTo(HaveOccurred())
	guard, err = process.NewGuard("hs-int-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return guard.Close() })
	binaries, err = env.BuildBinaries(ctx, root, guard.Dir(), GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	plane, err = env.StartControlPlane(env.ControlPlaneOptions{Servers: servers, Guard: guard})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return plane.Stop() })

	scheme := runtime.NewScheme()
	Expect(errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme))).To(Succeed())
	admin, err = client.New(plane.Config(), client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	Expect(plane.InstallOperator(ctx, root)).To(Succeed())
	operator, err = env.StartOperator(ctx, env.OperatorOptions{
		Binary: binaries.Operator, ControlPlane: plane, Admin: admin, Guard: guard, Output: GinkgoWriter,
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return operator.Stop() })
})
