package chart_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// What all specs share.
var (
	root  string
	plane *env.ControlPlane
)

func TestChart(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(time.Minute)
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "The Helm chart")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	root, err = serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	for _, name := range []string{"helm3", "helm4", "kustomize"} {
		if _, err := os.Stat(filepath.Join(root, "bin", name)); err != nil {
			Skip("bin/" + name + " is not there; `make test-chart` builds it and passes these tests")
		}
	}
	servers, err := serverbuild.Find(serverbuild.Options{Root: root})
	Expect(err).NotTo(HaveOccurred())
	guard, err := process.NewGuard("chart-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(guard.Close)
	plane, err = env.StartControlPlane(env.ControlPlaneOptions{Servers: servers, Guard: guard, CRDs: []string{
		filepath.Join(root, "config", "crd", "bases"), filepath.Join(root, "test", "chart", "testdata", "monitoring.yaml"),
	}})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(plane.Stop)
	for _, namespace := range []string{operatorNamespace, "team-a", "team-b"} {
		_, err := plane.Kubectl(ctx, "create", "namespace", namespace)
		Expect(err).NotTo(HaveOccurred())
	}
})
