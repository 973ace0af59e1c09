package chart_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	// releaseName gives the chart's objects the names that they have in config/default.
	releaseName = "headscale-operator"
	// operatorNamespace is the namespace of config/default.
	operatorNamespace = "headscale-operator-system"
)

// kubeVersion is what the chart is rendered for; without a cluster Helm takes an old one.
const kubeVersion = "1.37.0"

// helms are the major versions of Helm that the chart is for.
var helms = []string{"helm3", "helm4"}

// tool runs one of the programs in bin/, far from any cluster, and returns what it printed.
func tool(ctx context.Context, name string, args ...string) (string, error) {
	return toolOn(ctx, "/nowhere", name, args...)
}

// toolOn is tool with a cluster, which the kubeconfig names.
func toolOn(ctx context.Context, kubeconfig, name string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join(root, "bin", name), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	var output, complaints bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaints
	if err := command.Run(); err != nil {
		return output.String(), fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, output.String(), complaints.String())
	}
	return output.String(), nil
}

// chartDir is the chart's directory.
func chartDir() string {
	return filepath.Join(root, "charts", "headscale-operator")
}

// render renders the chart with values in YAML.
func render(ctx context.Context, helm, values string) (string, error) {
	GinkgoHelper()
	return renderChart(ctx, helm, chartDir(), values)
}

// renderChart renders a chart, a directory or a package, with values in YAML.
func renderChart(ctx context.Context, helm, chart, values string) (string, error) {
	GinkgoHelper()
	return tool(ctx, helm, "template", releaseName, chart, "--namespace", operatorNamespace, "--kube-version", kubeVersion, "--values", valuesFile(values))
}

// valuesFile writes values in YAML to a file of its own.
func valuesFile(values string) string {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), "values.yaml")
	Expect(os.WriteFile(file, []byte(values), 0o600)).To(Succeed())
	return file
}

// objects reads manifests; the objects of helm test are not among them.
func objects(manifests string) map[string]*unstructured.Unstructured {
	GinkgoHelper()
	found := objectsAndHooks(manifests)
	maps.DeleteFunc(found, func(_ string, object *unstructured.Unstructured) bool {
		return object.GetAnnotations()["helm.sh/hook"] != ""
	})
	return found
}

// objectsAndHooks reads manifests.
func objectsAndHooks(manifests string) map[string]*unstructured.Unstructured {
	GinkgoHelper()
	found := map[string]*unstructured.Unstructured{}
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return found
		}
		Expect(err).NotTo(HaveOccurred())
		if object.Object == nil {
			continue
		}
		name := object.GetKind() + " " + strings.TrimPrefix(object.GetNamespace()+"/", "/") + object.GetName()
		Expect(found).NotTo(HaveKey(name), "the same object twice")
		found[name] = object
	}
}
