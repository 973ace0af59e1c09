package instancetest

import (
	"context"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// update writes what becomes of the specs instead of comparing with it.
var update = flag.Bool("update", false, "write the outcomes in testdata/bad-input.yaml")

// badInputFile is the table of specs that are refused.
var badInputFile = filepath.Join("testdata", "bad-input.yaml")

// Input is objects of a kind as users might write them.
type Input struct {
	Cluster *Cluster
	// Kind and Resource are such as HeadscaleUser and headscaleusers.
	Kind, Resource string
	// Name is that of each object.
	Name string
	// Package is the name of the directory of the suite.
	Package string
}

// Create sends an object of a spec as it stands, with every field checked, as kubectl does.
func (i *Input) Create(ctx context.Context, namespace, spec string) error {
	body := "apiVersion: " + v1beta1.GroupVersion.String() + "\nkind: " + i.Kind + "\nmetadata: {name: " + i.Name + "}\nspec: " + strings.TrimSpace(spec) + "\n"
	return i.send(ctx, http.MethodPost, namespace, "", "application/yaml", body)
}

// Change sends a merge patch of the object's spec, in JSON, with every field checked.
func (i *Input) Change(ctx context.Context, namespace, spec string) error {
	return i.send(ctx, http.MethodPatch, namespace, i.Name, "application/merge-patch+json", `{"spec":`+spec+`}`)
}

// send sends a request about the objects, or about one by its name.
func (i *Input) send(ctx context.Context, method, namespace, name, contents, body string) error {
	config := rest.CopyConfig(i.Cluster.Config)
	config.GroupVersion = &schema.GroupVersion{Group: v1beta1.GroupVersion.Group, Version: v1beta1.GroupVersion.Version}
	config.APIPath, config.NegotiatedSerializer = "/apis", clientgoscheme.Codecs.WithoutConversion()
	connection, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	call := connection.Verb(method).Namespace(namespace).Resource(i.Resource)
	if name != "" {
		call = call.Name(name)
	}
	return call.Param("fieldValidation", metav1.FieldValidationStrict).
		SetHeader("Content-Type", contents).Body([]byte(body)).Do(ctx).Error()
}

// badInput is a spec and what becomes of it.
type badInput struct {
	Name    string `json:"name"`
	Before  string `json:"before,omitempty"`
	Spec    string `json:"spec"`
	Refused string `json:"refused"`
}

// readBadInputs reads the table, before the suite runs.
func readBadInputs() []badInput {
	raw, err := os.ReadFile(badInputFile)
	if err != nil {
		panic(err)
	}
	var inputs []badInput
	if err := yaml.UnmarshalStrict(raw, &inputs); err != nil {
		panic(err)
	}
	return inputs
}

// DescribeBadInput has a spec for each entry of testdata/bad-input.yaml, of which there are at
// least 40: it is refused, in the words that stand there.
func (i *Input) DescribeBadInput() bool {
	return Describe("Bad input", Ordered, ContinueOnFailure, func() {
		inputs := readBadInputs()
		for n := range inputs {
			input := &inputs[n]
			It("is refused: "+input.Name, func(ctx context.Context) {
				refused := i.refusalOf(ctx, input)
				if *update {
					input.Refused = refused
					return
				}
				if i.Cluster.hasOlderWords() {
					return // that it is refused was expected
				}
				Expect(refused).To(Equal(input.Refused))
			})
		}

		It("is a table of many", func() { Expect(len(inputs)).To(BeNumerically(">=", 40)) })

		AfterAll(func() {
			if *update {
				i.write(inputs)
			}
		})
	})
}

// hasOlderWords reports whether the API server is the oldest that is supported, Kubernetes 1.30, which
// says "string" in place of a value that it refuses.
func (c *Cluster) hasOlderWords() bool {
	GinkgoHelper()
	questions, err := discovery.NewDiscoveryClientForConfig(c.Config)
	Expect(err).NotTo(HaveOccurred())
	version, err := questions.ServerVersion()
	Expect(err).NotTo(HaveOccurred())
	return version.Minor == "30"
}

// refusalOf is what the API server answers to a bad input.
func (i *Input) refusalOf(ctx context.Context, input *badInput) string {
	GinkgoHelper()
	namespace, send := i.Cluster.NewNamespace(ctx), i.Create
	if input.Before != "" {
		Expect(i.Create(ctx, namespace, input.Before)).To(Succeed())
		send = i.Change
	}
	err := send(ctx, namespace, input.Spec)
	Expect(err).To(HaveOccurred())
	Expect(apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)).To(BeTrue(), "the error: %v", err)
	return err.Error()
}

// write writes the table.
func (i *Input) write(inputs []badInput) {
	GinkgoHelper()
	header := "# Specs as a user might write them, and what the API server answers: refused in these words, or, where\n" +
		"# a " + i.Kind + ` with the spec "before" exists, its change to "spec". To fill in what becomes of` + "\n" +
		"# them: go test ./internal/controller/" + i.Package + " -ginkgo.focus 'Bad input' -update\n"
	raw, err := yaml.Marshal(inputs)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(badInputFile, append([]byte(header), raw...), 0o600)).To(Succeed())
}
