package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/operator-framework/api/pkg/manifests"
	rbacv1 "k8s.io/api/rbac/v1"
)

// made is the first release, from the manifests that make bundle has rendered.
func made(t *testing.T, change func(installation string) string) (dir string, err error) {
	t.Helper()
	rendered, err := os.ReadFile("../../dist/bundle.yaml")
	if err != nil {
		t.Fatalf("%v: run make test-bundle", err)
	}
	dir = filepath.Join(t.TempDir(), "bundle")
	installation := bytes.NewBufferString(change(string(rendered)))
	if err := write(installation, "../../config/samples", dir, release{"0.1.0", "2026-11-27T00:00:00Z"}); err != nil {
		return dir, err
	}
	var warnings bytes.Buffer
	err = validate(dir, &warnings)
	if err == nil && warnings.Len() > 0 {
		t.Errorf("warnings: %s", &warnings)
	}
	return dir, err
}

func asItIs(installation string) string { return installation }

func TestABundleHasWhatAnInstallationHas(t *testing.T) {
	dir, err := made(t, asItIs)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := manifests.GetBundleFromDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var examples []struct{ Kind string }
	if err := json.Unmarshal([]byte(bundle.CSV.Annotations["alm-examples"]), &examples); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, example := range examples {
		kinds = append(kinds, example.Kind)
	}
	var owned []string
	for _, crd := range bundle.CSV.Spec.CustomResourceDefinitions.Owned {
		owned = append(owned, crd.Kind)
		if crd.Description == "" {
			t.Errorf("%s has no description", crd.Kind)
		}
	}
	slices.Sort(kinds)
	slices.Sort(owned)
	if want := []string{"Headscale", "HeadscalePolicy", "HeadscalePreAuthKey", "HeadscaleUser"}; !slices.Equal(kinds, want) || !slices.Equal(owned, want) {
		t.Errorf("examples of %v, and definitions of %v", kinds, owned)
	}
	details := bundle.CSV.Spec.InstallStrategy.StrategySpec
	if len(details.DeploymentSpecs) != 1 || len(details.Permissions) != 1 || len(details.ClusterPermissions) != 1 {
		t.Fatalf("deployments %d, permissions %d and %d", len(details.DeploymentSpecs), len(details.Permissions), len(details.ClusterPermissions))
	}
	env := details.DeploymentSpecs[0].Spec.Template.Spec.Containers[0].Env
	if last := env[len(env)-1]; last.Name != "WATCH_NAMESPACES" || last.ValueFrom.FieldRef.FieldPath != targetNamespaces {
		t.Errorf("the operator is not told which namespaces to watch: %v", env)
	}
	expectRules(t, "a namespace", details.Permissions[0].Rules, "statefulsets", "headscales", "leases", "secrets")
	expectRules(t, "the cluster", details.ClusterPermissions[0].Rules, "namespaces", "storageclasses", "tokenreviews")
	for _, object := range bundle.Objects {
		if strings.HasSuffix(object.GetName(), "manager-role") || strings.HasSuffix(object.GetName(), "metrics-auth-role") {
			t.Errorf("%s %s is also a manifest", object.GetKind(), object.GetName())
		}
	}
	if images := bundle.CSV.Spec.RelatedImages; len(images) != 2 || images[1].Image == "" {
		t.Errorf("related images: %v", images)
	}
}

// expectRules expects rules about resources.
func expectRules(t *testing.T, where string, rules []rbacv1.PolicyRule, resources ...string) {
	t.Helper()
	for _, resource := range resources {
		if !slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool { return slices.Contains(rule.Resources, resource) }) {
			t.Errorf("no rights on %s in %s", resource, where)
		}
	}
}

func TestAFaultIsAnError(t *testing.T) {
	for name, test := range map[string]struct {
		change func(string) string
		want   string
	}{
		"a kind that is not defined": {func(text string) string {
			return strings.ReplaceAll(text, "HeadscaleUser", "HeadscaleUsed")
		}, "HeadscaleUser"},
		"an object that OLM does not know": {func(text string) string {
			return text + "\n---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: x}\n"
		}, "no rule for Endpoints x"},
		"rights on what it does not know": {func(text string) string { return strings.ReplaceAll(text, "- statefulsets", "- daemonsets") }, "whether daemonsets"},
		"no Deployment":                   {func(text string) string { return strings.ReplaceAll(text, "kind: Deployment", "kind: Service") }, "have no Deployment"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := made(t, test.change); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}
