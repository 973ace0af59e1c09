package e2e_test

import (
	"context"
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
	servers, err := serverbuild.Ensure(ctx, serverbuild.Options{
		Root: root, Headscale: []string{olderHeadscale, newerHeadscale}, Log: os.Stderr,
	})
	Expect(err).NotTo(HaveOccurred())
	kubectl = servers.Kubectl()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	Expect(err).NotTo(HaveOccurred())
	scheme := runtime.NewScheme()
	Expect(errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme))).To(Succeed())
	admin, err = client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	Expect(loadImages(ctx, servers)).To(Succeed())
	startTools(ctx)
})

// The cluster is walked through in this order, and what fails keeps nothing else from
// being looked at.
var _ = Describe("The operator", Ordered, ContinueOnFailure, func() {
	JustAfterEach(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			keepEvidence(ctx)
		}
	})
	Context("installed with install.yaml", manifestSpecs)
	Context("installed with Helm 3", helm3Specs)
	Context("installed with Helm 4", helm4Specs)
})

// bin is the path of one of the repository's tools.
func bin(name string) string { return filepath.Join(root, "bin", name) }

// keepEvidence leaves what tells why a spec failed in one folder.
func keepEvidence(ctx context.Context) {
	dir := os.Getenv("E2E_ARTIFACTS")
	if dir == "" {
		dir = filepath.Join(root, "out", "e2e")
	}
	dir = filepath.Join(dir, fileName(CurrentSpecReport().FullText()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		GinkgoWriter.Println("no evidence:", err)
		return
	}
	keep := func(file string, args ...string) {
		output, err := kube(ctx, args...)
		if err != nil {
			output += "\n" + err.Error()
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(output), 0o600); err != nil {
			GinkgoWriter.Println("no evidence:", err)
		}
	}
	keep("events.txt", "get", "events", "-A", "--sort-by=.metadata.creationTimestamp")
	keep("objects.txt", "get", "all,headscales,roles,rolebindings,serviceaccounts,configmaps,persistentvolumeclaims", "-A", "-o", "wide")
	keep("headscales.yaml", "get", "headscales", "-A", "-o", "yaml")
	keep("pods.txt", "describe", "pods", "-A")
	for _, pod := range podNames(ctx) {
		for suffix, more := range map[string][]string{"": nil, ".previous": {"--previous"}} {
			args := append([]string{"logs", "--all-containers", "--prefix", "-n", pod.Namespace, pod.Name}, more...)
			keep("log-"+pod.Namespace+"-"+pod.Name+suffix+".txt", args...)
		}
	}
	GinkgoWriter.Println("logs, events and objects are in", dir)
}
