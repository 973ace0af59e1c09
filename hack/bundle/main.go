// Command bundle writes an OLM bundle of the operator: the manifests of an installation, which it
// reads from standard input, as a ClusterServiceVersion and what belongs to it. It validates what
// it has written, prints warnings, and fails on an error.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/api/pkg/validation"
	interfaces "github.com/operator-framework/api/pkg/validation/interfaces"
)

const (
	packageName = "headscale-operator"
	// channel is the only one: a release is for everybody.
	channel = "stable"

	manifestsDir = "manifests/"
	metadataDir  = "metadata/"
)

func main() {
	version := flag.String("version", "", "the release, such as v0.1.0")
	created := flag.String("created", "", "when it was built, in RFC 3339")
	samples := flag.String("samples", "config/samples", "the directory of the samples")
	output := flag.String("output", "dist/bundle", "the directory to write to; it is replaced")
	flag.Parse()
	err := write(os.Stdin, *samples, *output, release{version: strings.TrimPrefix(*version, "v"), created: *created})
	if err == nil {
		err = validate(*output, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

// release is what a bundle says of itself.
type release struct{ version, created string }

// write writes a bundle of the manifests of an installation.
func write(installation io.Reader, samples, output string, r release) error {
	objects, err := readObjects(installation)
	if err != nil {
		return err
	}
	examples, err := readSamples(samples)
	if err != nil {
		return err
	}
	files, err := bundleFiles(objects, examples, r)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(output); err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(output, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // who unpacks the image is not its owner
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // as above
			return err
		}
	}
	return nil
}

// validators are those of a catalog of operators.
var validators = interfaces.Validators{
	validation.ClusterServiceVersionValidator, validation.CustomResourceDefinitionValidator, validation.BundleValidator,
	validation.OperatorHubV2Validator, validation.StandardCapabilitiesValidator, validation.StandardCategoriesValidator,
	validation.ObjectValidator, validation.GoodPracticesValidator, validation.AlphaDeprecatedAPIsValidator,
}

// validate validates a bundle as a catalog of operators does, and prints warnings.
func validate(dir string, warnings io.Writer) error {
	bundle, err := manifests.GetBundleFromDir(dir)
	if err != nil {
		return fmt.Errorf("the bundle cannot be read: %w", err)
	}
	objects := []any{bundle, bundle.CSV}
	for _, crd := range bundle.V1CRDs {
		objects = append(objects, crd)
	}
	for _, object := range bundle.Objects {
		objects = append(objects, object)
	}
	var all []error
	for _, result := range validators.Validate(objects...) {
		for _, warning := range result.Warnings {
			_, _ = fmt.Fprintln(warnings, "bundle: warning:", warning.Error())
		}
		for _, failed := range result.Errors {
			all = append(all, failed)
		}
	}
	return errors.Join(all...)
}
