package chart_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
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
			Skip("bin/" + name + " is missing; `make test-chart` builds it and runs these tests")
		}
	}
	servers, err := serverbuild.Find(serverbuild.Options{Root: root})
	Expect(err).NotTo(HaveOccurred())
	guard, err := process.NewGuard("chart-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(guard.Close)
	kinds, err := monitoringKinds(ctx)
	Expect(err).NotTo(HaveOccurred())
	plane, err = env.StartControlPlane(env.ControlPlaneOptions{Servers: servers, Guard: guard, CRDs: append(kinds, filepath.Join(root, "config", "crd", "bases"))})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(plane.Stop)
	for _, namespace := range []string{operatorNamespace, "team-a", "team-b"} {
		_, err := plane.Kubectl(ctx, "create", "namespace", namespace)
		Expect(err).NotTo(HaveOccurred())
	}
})

// monitoringKinds are the files with the definitions of the Prometheus operator's kinds,
// from the release that test/chart/kinds pins.
func monitoringKinds(ctx context.Context) ([]string, error) {
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator")
	command.Dir = filepath.Join(root, "test", "chart", "kinds")
	printed, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("downloading the definitions of the Prometheus operator's kinds: %w: %s", err, printed)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(printed, &module); err != nil {
		return nil, err
	}
	var files []string
	for _, kind := range []string{"servicemonitors", "podmonitors", "prometheusrules"} {
		files = append(files, filepath.Join(module.Dir, "example", "prometheus-operator-crd", "monitoring.coreos.com_"+kind+".yaml"))
	}
	return files, nil
}
