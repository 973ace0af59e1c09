package e2e_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// Versions of Headscale that an upgrade goes from and to.
const (
	olderHeadscale = "v0.28.0"
	newerHeadscale = "v0.29.3"
)

// What all specs share.
var (
	root    string
	admin   client.Client
	kubectl string // path of the program
)

func TestE2E(t *testing.T) {
	if os.Getenv("E2E") == "" {
		t.Skip("needs a cluster to play with: make test-e2e")
	}
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(3 * time.Minute)
	SetDefaultEventuallyPollingInterval(250 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "The operator on a real cluster")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	root, err = serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	Expect(clearEvidence()).To(Succeed())
	servers, err := serverbuild.Ensure(ctx, serverbuild.Options{
		Root: root, Headscale: []string{olderHeadscale, newerHeadscale}, Litestream: true, Log: os.Stderr,
	})
	Expect(err).NotTo(HaveOccurred())
	kubectl = servers.Kubectl()
	// As kubectl does: KUBECONFIG may be a list of files.
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	Expect(err).NotTo(HaveOccurred())
	scheme := runtime.NewScheme()
	Expect(errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme))).To(Succeed())
	admin, err = client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	started := false
	defer func() {
		if !started {
			keepEvidence("the tools do not start")
		}
	}()
	Expect(loadImages(ctx, servers)).To(Succeed())
	startTools(ctx)
	started = true
})

// What failed after the last spec, while things were removed, is still there now.
var _ = ReportAfterSuite("evidence", func(report Report) {
	if report.SuiteSucceeded || root == "" {
		return
	}
	keepFailures(report)
	if admin != nil {
		keepEvidence("the end")
	}
})

// The cluster is walked through in this order. A spec that fails keeps nothing else from
// being looked at; a BeforeAll that fails does.
var _ = Describe("The operator", Ordered, ContinueOnFailure, func() {
	JustAfterEach(func() {
		if CurrentSpecReport().Failed() {
			keepEvidence(CurrentSpecReport().FullText())
		}
	})
	Context("installed as the README says", readmeSpecs)
	Context("followed as the pages say", pagesSpecs)
	Context("installed with install.yaml", manifestSpecs)
	Context("installed with Helm 3", func() { helmSpecs(helmCase{helm: "helm3", namespace: "default"}) })
	Context("installed with Helm 4 for one namespace", func() {
		helmSpecs(helmCase{
			helm: "helm4", namespace: "e2e-notes", removesCRD: true,
			values: []string{"--set", "watchNamespaces={e2e-notes}", "--set", "crds.keep=false"},
		})
	})
	Context("upgraded with Helm 4", walkSpecs)
})

// bin is the path of one of the repository's tools.
func bin(name string) string { return filepath.Join(root, "bin", name) }
