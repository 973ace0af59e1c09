package instancetest

import (
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestMisjudged(t *testing.T) {
	for status, wrong := range map[string]string{
		"{observedGeneration: -1, conditions: [{type: Ready, status: Unknown}]}":                                     "",
		"{observedGeneration: 2, conditions: [{type: Ready, status: 'True'}]}":                                       "",
		"{observedGeneration: 2, conditions: [{type: Ready, status: 'False'}, {type: Reconciling, status: 'True'}]}": "",
		"{observedGeneration: 2, conditions: [{type: Ready, status: 'False'}, {type: Stalled, status: 'True'}]}":     "",
		"{observedGeneration: 2}": `Ready "", Reconciling "", Stalled ""`,
		"{observedGeneration: 2, conditions: [{type: Ready, status: 'False'}]}":                                                                       `Ready "False", Reconciling "", Stalled ""`,
		"{observedGeneration: 2, conditions: [{type: Ready, status: 'True'}, {type: Reconciling, status: 'True'}]}":                                   `Ready "True", Reconciling "True", Stalled ""`,
		"{observedGeneration: 2, conditions: [{type: Ready, status: 'False'}, {type: Stalled, status: 'True'}, {type: Reconciling, status: 'True'}]}": `Ready "False", Reconciling "True", Stalled "True"`,
	} {
		t.Run(status, func(t *testing.T) {
			g := NewWithT(t)
			object := &unstructured.Unstructured{}
			g.Expect(yaml.Unmarshal([]byte("metadata: {generation: 2}\nstatus: "+status+"\n"), &object.Object)).To(Succeed())
			object.SetGeneration(2) // as an integer
			if observed, found, _ := unstructured.NestedFieldNoCopy(object.Object, "status", "observedGeneration"); found {
				number, is := observed.(float64)
				g.Expect(is).To(BeTrue())
				g.Expect(unstructured.SetNestedField(object.Object, int64(number), "status", "observedGeneration")).To(Succeed())
			}
			g.Expect(misjudged(object)).To(Equal(wrong))
		})
	}
}
