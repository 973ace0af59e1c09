package main

import (
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/blang/semver/v4"
	"github.com/operator-framework/api/pkg/operators/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

const (
	// targetNamespaces is the annotation of the operator's pod with the namespaces to watch; it is
	// empty for all.
	targetNamespaces = "metadata.annotations['olm.targetNamespaces']"

	home = "https://github.com/infrado/headscale-operator"
)

// icon is four devices around one server.
//
//go:embed icon.svg
var icon []byte

// readObjects reads all objects of a stream of manifests.
func readObjects(stream io.Reader) (objects []*unstructured.Unstructured, err error) {
	decoder := utilyaml.NewYAMLOrJSONDecoder(stream, 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		switch {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, fmt.Errorf("reading the manifests: %w", err)
		case object.Object != nil:
			objects = append(objects, object)
		}
	}
}

// readSamples reads the samples of a directory, but for the list of them.
func readSamples(dir string) (samples []*unstructured.Unstructured, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*_*.yaml"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		file, err := os.Open(path) //nolint:gosec // the caller of this program chooses the directory
		if err != nil {
			return nil, err
		}
		objects, err := readObjects(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		samples = append(samples, objects...)
	}
	return samples, nil
}

// installation is what the manifests of an installation have, by what becomes of it.
type installation struct {
	deployment *appsv1.Deployment
	crds       []*apiextensionsv1.CustomResourceDefinition
	// roles are those of the operator's ServiceAccount, which OLM makes by itself.
	roles map[string][]rbacv1.PolicyRule
	// bound are the names of those roles.
	bound []string
	// plain are objects that the bundle has as they are.
	plain []*unstructured.Unstructured
}

// sortObjects sorts the objects of an installation. It fails on an object for which OLM has no place.
func sortObjects(objects []*unstructured.Unstructured) (in installation, err error) {
	in.roles = map[string][]rbacv1.PolicyRule{}
	for _, object := range objects {
		switch kind := object.GetKind(); kind {
		case "Namespace", "ServiceAccount":
			// OLM makes them.
		case "Deployment":
			in.deployment = &appsv1.Deployment{}
			err = convert(object, in.deployment)
		case "CustomResourceDefinition":
			crd := &apiextensionsv1.CustomResourceDefinition{}
			err = convert(object, crd)
			in.crds = append(in.crds, crd)
			in.plain = append(in.plain, object)
		case "Role", "ClusterRole":
			role := &rbacv1.ClusterRole{}
			err = convert(object, role)
			in.roles[object.GetName()] = role.Rules
			if kind == "ClusterRole" {
				in.plain = append(in.plain, object)
			}
		case "RoleBinding", "ClusterRoleBinding":
			binding := &rbacv1.ClusterRoleBinding{}
			err = convert(object, binding)
			in.bound = append(in.bound, binding.RoleRef.Name)
		case "Service":
			in.plain = append(in.plain, object)
		default:
			return in, fmt.Errorf("there is no rule for %s %s: add one", kind, object.GetName())
		}
		if err != nil {
			return in, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	if in.deployment == nil || len(in.crds) == 0 {
		return in, errors.New("the manifests have no Deployment or no CustomResourceDefinition: pass those of a whole installation")
	}
	// The operator's own roles are in the ClusterServiceVersion.
	in.plain = slices.DeleteFunc(in.plain, func(object *unstructured.Unstructured) bool {
		return slices.Contains(in.bound, object.GetName())
	})
	return in, nil
}

func convert(object *unstructured.Unstructured, into any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, into, true)
}

// Resources in the operator's rules. OLM gives rights on those of the first list in the cluster, and on
// those of the second in the namespaces that are watched.
var (
	ofCluster   = []string{"namespaces", "storageclasses", "tokenreviews", "subjectaccessreviews"}
	ofNamespace = []string{
		"configmaps", "events", "headscalepolicies", "headscalepreauthkeys", "headscales", "headscaleusers", "jobs", "leases",
		"persistentvolumeclaims", "pods", "rolebindings", "roles", "secrets", "serviceaccounts", "services", "statefulsets",
	}
)

// splitRules parts rules about resources in a namespace from those of the cluster. It fails on a
// resource of which it is not known, and on a rule about both.
func splitRules(rules []rbacv1.PolicyRule) (namespaced, cluster []rbacv1.PolicyRule, err error) {
	for _, rule := range rules {
		inside := 0
		for _, resource := range rule.Resources {
			name, _, _ := strings.Cut(resource, "/")
			switch {
			case slices.Contains(ofNamespace, name):
				inside++
			case !slices.Contains(ofCluster, name):
				return nil, nil, fmt.Errorf("say in hack/bundle whether %s are in a namespace", name)
			}
		}
		switch inside {
		case len(rule.Resources):
			namespaced = append(namespaced, rule)
		case 0:
			cluster = append(cluster, rule)
		default:
			return nil, nil, fmt.Errorf("one rule is about resources in a namespace and others: %v", rule.Resources)
		}
	}
	return namespaced, cluster, nil
}

// bundleFiles are the files of a bundle, by their path in it.
func bundleFiles(objects, samples []*unstructured.Unstructured, r release) (map[string][]byte, error) {
	in, err := sortObjects(objects)
	if err != nil {
		return nil, err
	}
	csv, err := newCSV(in, samples, r)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{
		"bundle.Dockerfile":              []byte(dockerfile()),
		metadataDir + "annotations.yaml": nil,
	}
	if files[metadataDir+"annotations.yaml"], err = yaml.Marshal(map[string]any{"annotations": annotations()}); err != nil {
		return nil, err
	}
	add := func(name string, object any) error {
		content, err := yaml.Marshal(object)
		files[manifestsDir+name] = content
		return err
	}
	if err := add(packageName+".clusterserviceversion.yaml", csv); err != nil {
		return nil, err
	}
	for _, object := range in.plain {
		object.SetNamespace("")
		if err := add(strings.ToLower(object.GetName()+"_"+object.GetKind())+".yaml", object.Object); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// annotations are what an index of bundles reads.
func annotations() map[string]string {
	const prefix = "operators.operatorframework.io.bundle."
	return map[string]string{
		prefix + "mediatype.v1":       "registry+v1",
		prefix + "manifests.v1":       manifestsDir,
		prefix + "metadata.v1":        metadataDir,
		prefix + "package.v1":         packageName,
		prefix + "channels.v1":        channel,
		prefix + "channel.default.v1": channel,
	}
}

// dockerfile builds the image of a bundle.
func dockerfile() string {
	lines := []string{"FROM scratch"}
	for name, value := range annotations() {
		lines = append(lines, "LABEL "+name+"="+value)
	}
	slices.Sort(lines[1:])
	return strings.Join(append(lines, "COPY manifests /manifests/", "COPY metadata /metadata/"), "\n") + "\n"
}

// newCSV is the ClusterServiceVersion of an installation.
func newCSV(in installation, samples []*unstructured.Unstructured, r release) (map[string]any, error) {
	examples := make([]any, len(samples))
	for i, sample := range samples {
		examples[i] = sample.Object
	}
	exampleText, err := json.MarshalIndent(examples, "", "  ")
	if err != nil {
		return nil, err
	}
	csv := &v1alpha1.ClusterServiceVersion{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.ClusterServiceVersionAPIVersion, Kind: v1alpha1.ClusterServiceVersionKind},
		ObjectMeta: metav1.ObjectMeta{
			Name: packageName + ".v" + r.version,
			Annotations: map[string]string{
				"alm-examples":   string(exampleText),
				"capabilities":   "Deep Insights",
				"categories":     "Networking,Security",
				"containerImage": in.deployment.Spec.Template.Spec.Containers[0].Image,
				"createdAt":      r.created,
				"description":    "Runs Headscale, with its users, pre-auth keys and policy as resources",
				"repository":     home,
				"support":        home + "/issues",
			},
		},
		Spec: v1alpha1.ClusterServiceVersionSpec{
			DisplayName:    "Headscale Operator",
			Description:    description,
			Keywords:       []string{"headscale", "tailscale", "vpn", "wireguard"},
			Maturity:       "beta",
			MinKubeVersion: "1.30.0",
			Provider:       v1alpha1.AppLink{Name: "Infrado", URL: home},
			Links:          []v1alpha1.AppLink{{Name: "Documentation", URL: home + "/blob/main/docs/README.md"}},
			Icon:           []v1alpha1.Icon{{MediaType: "image/svg+xml", Data: base64.StdEncoding.EncodeToString(icon)}},
			InstallModes: []v1alpha1.InstallMode{
				{Type: v1alpha1.InstallModeTypeOwnNamespace, Supported: true},
				{Type: v1alpha1.InstallModeTypeSingleNamespace},
				{Type: v1alpha1.InstallModeTypeMultiNamespace},
				{Type: v1alpha1.InstallModeTypeAllNamespaces, Supported: true},
			},
			InstallStrategy: v1alpha1.NamedInstallStrategy{StrategyName: v1alpha1.InstallStrategyNameDeployment},
		},
	}
	if csv.Spec.Version.Version, err = semver.Parse(r.version); err != nil {
		return nil, fmt.Errorf("the version %q is none such as v0.1.0: %w", r.version, err)
	}
	if csv.Spec.InstallStrategy.StrategySpec, err = strategy(in); err != nil {
		return nil, err
	}
	csv.Spec.RelatedImages = relatedImages(in.deployment)
	csv.Spec.CustomResourceDefinitions.Owned = ownedCRDs(in.crds)
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(csv)
	delete(object, "status")
	return object, err
}

// strategy is how OLM installs the operator.
func strategy(in installation) (details v1alpha1.StrategyDetailsDeployment, err error) {
	container := &in.deployment.Spec.Template.Spec.Containers[0]
	container.Env = append(container.Env, corev1.EnvVar{
		Name: "WATCH_NAMESPACES", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: targetNamespaces}},
	})
	details.DeploymentSpecs = []v1alpha1.StrategyDeploymentSpec{{
		Name: in.deployment.Name, Label: in.deployment.Labels, Spec: in.deployment.Spec,
	}}
	var namespaced, cluster []rbacv1.PolicyRule
	for _, name := range in.bound {
		inside, outside, err := splitRules(in.roles[name])
		if err != nil {
			return details, fmt.Errorf("role %s: %w", name, err)
		}
		namespaced, cluster = append(namespaced, inside...), append(cluster, outside...)
	}
	account := in.deployment.Spec.Template.Spec.ServiceAccountName
	details.Permissions = []v1alpha1.StrategyDeploymentPermissions{{ServiceAccountName: account, Rules: namespaced}}
	details.ClusterPermissions = []v1alpha1.StrategyDeploymentPermissions{{ServiceAccountName: account, Rules: cluster}}
	return details, nil
}

// relatedImages are those that a mirror must have.
func relatedImages(deployment *appsv1.Deployment) []v1alpha1.RelatedImage {
	container := deployment.Spec.Template.Spec.Containers[0]
	images := []v1alpha1.RelatedImage{{Name: "operator", Image: container.Image}}
	for _, variable := range container.Env {
		if variable.Name == "MANAGER_IMAGE" {
			images = append(images, v1alpha1.RelatedImage{Name: "apikey-manager", Image: variable.Value})
		}
	}
	return images
}

// ownedCRDs describes the kinds in the words of their definitions.
func ownedCRDs(crds []*apiextensionsv1.CustomResourceDefinition) (owned []v1alpha1.CRDDescription) {
	for _, crd := range crds {
		served := crd.Spec.Versions[0]
		text := strings.Join(strings.Fields(served.Schema.OpenAPIV3Schema.Description), " ")
		owned = append(owned, v1alpha1.CRDDescription{
			Name: crd.Name, Version: served.Name, Kind: crd.Spec.Names.Kind, DisplayName: crd.Spec.Names.Kind, Description: text,
		})
	}
	return owned
}

// description is what a catalog shows.
const description = `Runs [Headscale](https://github.com/juanfont/headscale), the self-hosted Tailscale control server.

* The **Headscale** resource takes Headscale's own config. An admin API key is kept in a Secret, rotated, and revoked in
  Headscale. A change that Headscale would refuse to start with never replaces the one that runs. With a backup, a lost
  volume restores itself.
* **HeadscaleUser**, **HeadscalePreAuthKey** and **HeadscalePolicy** are its users, keys in Secrets that always work, and
  the rules of the tailnet.

The documentation is in the repository.
`
