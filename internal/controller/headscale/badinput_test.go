package headscale

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// update writes what becomes of the manifests instead of comparing with it.
var update = flag.Bool("update", false, "write the outcomes in testdata/bad-input.yaml")

// badInputFile is the table of manifests.
var badInputFile = filepath.Join("testdata", "bad-input.yaml")

// badInputHeader is what the table begins with.
const badInputHeader = `# Manifests as a user might write them, and what becomes of each: the API server refuses
# it in these words, or the condition Ready reports this reason and message. To fill in
# what becomes of them: go test ./internal/controller/headscale -ginkgo.focus 'Bad input' -update
`

// badInput is a manifest and what becomes of it.
type badInput struct {
	Name     string `json:"name"`
	Manifest string `json:"manifest"`
	// Refused is how the API server refuses it.
	Refused string `json:"refused,omitempty"`
	// Reported is the reason and the message of the condition Ready.
	Reported string `json:"reported,omitempty"`
}

// badInputs reads the table.
func badInputs() []badInput {
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

// send creates a Headscale of a text that is sent as it stands, with every field
// checked, as kubectl does.
func send(ctx context.Context, namespace, text string) error {
	config := rest.CopyConfig(adminConfig)
	config.GroupVersion = &schema.GroupVersion{Group: v1beta1.GroupVersion.Group, Version: v1beta1.GroupVersion.Version}
	config.APIPath = "/apis"
	config.NegotiatedSerializer = clientgoscheme.Codecs.WithoutConversion()
	connection, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	return connection.Post().Namespace(namespace).Resource("headscales").
		Param("fieldValidation", metav1.FieldValidationStrict).
		SetHeader("Content-Type", "application/yaml").
		Body([]byte(text)).Do(ctx).Error()
}

var _ = Describe("Bad input", Ordered, func() {
	inputs := badInputs()

	refusal := func(ctx context.Context, input *badInput) string {
		GinkgoHelper()
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bad-"}}
		Expect(admin.Create(ctx, namespace)).To(Succeed())
		err := send(ctx, namespace.Name, input.Manifest)
		if err == nil {
			return ""
		}
		Expect(apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)).To(BeTrue(), "the error: %v", err)
		return err.Error()
	}

	report := func(ctx context.Context, input *badInput) string {
		GinkgoHelper()
		errors := errorsSoFar()
		o := startOperator(ctx)
		Expect(send(ctx, o.namespace, input.Manifest)).To(Succeed())
		headscales := &v1beta1.HeadscaleList{}
		Expect(admin.List(ctx, headscales, client.InNamespace(o.namespace))).To(Succeed())
		Expect(headscales.Items).To(HaveLen(1))
		name := headscales.Items[0].Name
		var ready metav1.Condition
		Eventually(func(g Gomega) { ready = condition(ctx, o.namespace, name, v1beta1.ConditionReady)(g) }).WithContext(ctx).Should(Succeed())

		// The watches bring what the operator itself has written, and then there is nothing
		// to do: no error, no write, and no reason to look again soon.
		Eventually(func(g Gomega) {
			before := o.changed()
			result, err := o.look(ctx, name)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(result.RequeueAfter).To(Or(BeZero(), BeNumerically(">=", startGrace-10*time.Second)))
			g.Expect(o.changed()).To(Equal(before))
		}).WithContext(ctx).Should(Succeed())
		Expect(errorsSoFar()).To(Equal(errors), "nothing was tried again in a hurry")
		return ready.Reason + ": " + ready.Message
	}

	for i := range inputs {
		input := &inputs[i]
		It("is answered: "+input.Name, func(ctx context.Context) {
			if *update {
				if input.Refused = refusal(ctx, input); input.Refused == "" {
					input.Reported = report(ctx, input)
				}
				return
			}
			refused := refusal(ctx, input)
			if !validatesTemplates(ctx) { // An older release, with other words.
				accepted := refused == ""
				Expect(accepted).To(Equal(input.Refused == ""), refused)
				return
			}
			Expect(refused).To(Equal(input.Refused))
			if input.Refused == "" {
				Expect(input.Reported).NotTo(BeEmpty())
				Expect(report(ctx, input)).To(Equal(input.Reported))
			}
		})
	}

	AfterAll(func() {
		if *update {
			raw, err := yaml.Marshal(inputs)
			Expect(err).NotTo(HaveOccurred())
			Expect(os.WriteFile(badInputFile, append([]byte(badInputHeader), raw...), 0o600)).To(Succeed())
		}
	})
})
