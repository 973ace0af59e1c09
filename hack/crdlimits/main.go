// Command crdlimits gives every list, map and string of the schemas of all kinds that has no limit
// of its own one: those of Kubernetes' types, on which no marker can stand. Run it after
// controller-gen: make manifests.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// The limits within Kubernetes' types. A Headscale as a whole has one, too: what counts here is
// that no part is out of all proportion. docs/spec/headscale.md lists them.
const (
	// maxEntries is how many entries a list or a map has.
	maxEntries = 64
	// maxValues is how many values a requirement of a selector has, or files a volume.
	maxValues = 256
	// maxString is the longest string: names, keys and values of labels are shorter.
	maxString = 1024
	// maxPath is the longest path of a file, PATH_MAX of Linux.
	maxPath = 4096
	// maxText is the longest value of an environment variable or of an annotation.
	maxText = 32 << 10
	// maxQuantity is the longest amount, such as 1.5Gi.
	maxQuantity = 64
)

// kubernetesOwn are the places whose inside is of Kubernetes' types, as limit writes paths.
var kubernetesOwn = regexp.MustCompile(`^\.spec\.(pod\.|persistent_volume_claim\.size$|image_pull_secrets\[\]\.|access\[\]\.namespaces\.selector\.)`)

// exceptions are the limits of the places that end so; the first counts.
var exceptions = []struct {
	place *regexp.Regexp
	limit int64
}{
	{regexp.MustCompile(`\.(values|items|namespaces)$`), maxValues},
	{regexp.MustCompile(`(\.env\[\]\.value|[aA]nnotations\{\})$`), maxText},
	{regexp.MustCompile(`(\.volumeAttributes\{\}|[pP]ath|[pP]athExpr)$`), maxPath},
}

func main() {
	directory := flag.String("directory", "config/crd/bases", "`directory` of the CustomResourceDefinitions to change")
	flag.Parse()
	if err := run(*directory); err != nil {
		fmt.Fprintln(os.Stderr, "crdlimits:", err)
		os.Exit(1)
	}
}

// run adds the limits to all definitions in a directory, of which there must be one.
func run(directory string) error {
	files, err := filepath.Glob(filepath.Join(directory, "*.yaml"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s has no *.yaml", directory)
	}
	for _, file := range files {
		err = errors.Join(err, change(file))
	}
	return err
}

// change adds the limits to the definition in a file.
func change(file string) error {
	text, err := os.ReadFile(file) //nolint:gosec // the file that the developer names
	if err != nil {
		return err
	}
	var document map[string]any
	if err := yaml.UnmarshalStrict(text, &document); err != nil {
		return err
	}
	definition := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(text, definition); err != nil {
		return err
	}
	for i := range definition.Spec.Versions {
		limit("", definition.Spec.Versions[i].Schema.OpenAPIV3Schema)
	}
	// What controller-gen does not write, it does not get here either.
	document["spec"] = definition.Spec
	limited, err := yaml.Marshal(document)
	if err != nil {
		return err
	}
	return os.WriteFile(file, append([]byte("---\n"), limited...), 0o644) //nolint:gosec // a manifest that everyone may read
}

// limit adds limits to a schema and all below it. A place is a path in which [] stands for the
// entries of a list and {} for those of a map.
func limit(place string, schema *apiextensionsv1.JSONSchemaProps) {
	if kubernetesOwn.MatchString(place) {
		limitOne(place, schema)
	}
	for name := range schema.Properties {
		property := schema.Properties[name]
		limit(place+"."+name, &property)
		schema.Properties[name] = property
	}
	if schema.Items != nil {
		limit(place+"[]", schema.Items.Schema)
	}
	if schema.AdditionalProperties != nil {
		limit(place+"{}", schema.AdditionalProperties.Schema)
	}
}

// limitOne adds the limit to a schema that has none.
func limitOne(place string, schema *apiextensionsv1.JSONSchemaProps) {
	switch {
	case schema.XIntOrString:
		setLimit(&schema.MaxLength, maxQuantity)
	case schema.Type == "string":
		setLimit(&schema.MaxLength, limitOf(place, maxString))
	case schema.Type == "array":
		setLimit(&schema.MaxItems, limitOf(place, maxEntries))
	case schema.AdditionalProperties != nil:
		setLimit(&schema.MaxProperties, limitOf(place, maxEntries))
	}
}

// setLimit sets a limit where there is none.
func setLimit(limit **int64, to int64) {
	if *limit == nil {
		*limit = &to
	}
}

// limitOf is the limit of a place, which usually is this one.
func limitOf(place string, usual int64) int64 {
	for _, exception := range exceptions {
		if exception.place.MatchString(place) {
			return exception.limit
		}
	}
	return usual
}
