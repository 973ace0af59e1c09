package instancetest

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// ExpectKstatus has all objects of a kind be checked after each spec, in whatever state they are then: by
// the rules that kstatus has published for resources of any kind, one that is ready is Current, and one
// that is not is either InProgress or Failed.
func (c *Cluster) ExpectKstatus(kind string) bool {
	return AfterEach(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			return
		}
		Expect(c.allMisjudged(ctx, kind)).To(BeEmpty())
	})
}

// allMisjudged are the objects of a kind of which kstatus would say what they are not.
func (c *Cluster) allMisjudged(ctx context.Context, kind string) (found []string) {
	GinkgoHelper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(v1beta1.GroupVersion.WithKind(kind + "List"))
	Expect(c.Admin.List(ctx, list)).To(Succeed())
	for i := range list.Items {
		if wrong := misjudged(&list.Items[i]); wrong != "" {
			found = append(found, list.Items[i].GetNamespace()+"/"+list.Items[i].GetName()+": "+wrong)
		}
	}
	return found
}

// misjudged is what is wrong with the conditions of an object; empty: nothing.
func misjudged(object *unstructured.Unstructured) string {
	observed, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	if observed != object.GetGeneration() || object.GetDeletionTimestamp() != nil {
		return "" // InProgress, or Terminating, whatever the conditions are
	}
	conditions := conditionsOf(object)
	ready, reconciling, stalled := conditions[v1beta1.ConditionReady], conditions[v1beta1.ConditionReconciling], conditions[v1beta1.ConditionStalled]
	current := ready == "True" && reconciling == "" && stalled == ""
	inProgress := ready == "False" && reconciling == "True" && stalled == ""
	failed := ready == "False" && reconciling == "" && stalled == "True"
	if current || inProgress || failed {
		return ""
	}
	return fmt.Sprintf("Ready %q, Reconciling %q, Stalled %q", ready, reconciling, stalled)
}

// conditionsOf are the statuses of an object's conditions, by their types.
func conditionsOf(object *unstructured.Unstructured) map[string]string {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	statuses := map[string]string{}
	for _, one := range conditions {
		if condition, is := one.(map[string]any); is {
			kind, _, _ := unstructured.NestedString(condition, "type")
			statuses[kind], _, _ = unstructured.NestedString(condition, "status")
		}
	}
	return statuses
}
