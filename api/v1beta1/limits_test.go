package v1beta1_test

import (
	"maps"
	"slices"
	"testing"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// unlimited are the places of the schemas without a limit of their own, with what limits them.
var unlimited = map[string]map[string]string{"headscalepreauthkey": {
	".apiVersion": "the API server accepts those it serves",
	".kind":       "the API server accepts the one",

	".status.expiration":                      "a date",
	".status.nextRotation":                    "a date",
	".status.conditions[].lastTransitionTime": "a date",
}, "headscaleuser": {
	".apiVersion": "the API server accepts those it serves",
	".kind":       "the API server accepts the one",

	".status.createdAt":                       "a date",
	".status.conditions[].lastTransitionTime": "a date",
}, "headscalepolicy": {
	".apiVersion": "the API server accepts those it serves",
	".kind":       "the API server accepts the one",

	".spec.policy":                            "a request has a limit, and the operator one of levels",
	".status.appliedAt":                       "a date",
	".status.correctedAt":                     "a date",
	".status.conditions[].lastTransitionTime": "a date",
}, "headscale": {
	".apiVersion": "the API server accepts those it serves",
	".kind":       "the API server accepts the one",

	".spec.backup.replica": "the operator counts it with everything else: MaxSize",

	".spec.config":                 "the operator counts its bytes, values and levels: MaxConfigSize",
	".spec.config.database":        "a part of spec.config",
	".spec.config.database.sqlite": "a part of spec.config",
	".spec.config.derp":            "a part of spec.config",
	".spec.config.derp.server":     "a part of spec.config",

	".status.api_key.expiration":              "a date",
	".status.api_key.next_rotation":           "a date",
	".status.conditions[].lastTransitionTime": "a date",
	".status.backup.started_at":               "a date",
	".status.backup_verification.ended_at":    "a date",
	".status.backup_verification.verified_at": "a date",
	".status.preflight.retry_at":              "a date",
	".status.preflight.started_at":            "a date",
}}

// TestEverythingHasALimit walks the schemas as they are installed.
func TestEverythingHasALimit(t *testing.T) {
	for kind, fields := range map[string]int{"headscale": 300, "headscalepolicy": 15, "headscalepreauthkey": 30, "headscaleuser": 20} {
		t.Run(kind, func(t *testing.T) { checkLimits(t, kind, fields) })
	}
}

func checkLimits(t *testing.T, kind string, fields int) {
	g := NewWithT(t)
	found, walked := map[string]bool{}, 0
	walkSchema("", schema(g, kind), func(place string, of apiextensionsv1.JSONSchemaProps) {
		walked++
		if isUnlimited(of) {
			found[place] = true
		}
	})
	g.Expect(walked).To(BeNumerically(">", fields))
	g.Expect(slices.Sorted(maps.Keys(found))).To(Equal(slices.Sorted(maps.Keys(unlimited[kind]))),
		"a field has no limit: give it a marker such as +kubebuilder:validation:MaxLength, or, within Kubernetes' types, hack/crdlimits a rule")
}

// walkSchema visits a schema and all below it. In a place, [] stands for the entries of a list
// and {} for those of a map.
func walkSchema(place string, of apiextensionsv1.JSONSchemaProps, visit func(place string, of apiextensionsv1.JSONSchemaProps)) {
	visit(place, of)
	for name := range of.Properties {
		walkSchema(place+"."+name, of.Properties[name], visit)
	}
	if of.Items != nil {
		walkSchema(place+"[]", *of.Items.Schema, visit)
	}
	if of.AdditionalProperties != nil {
		walkSchema(place+"{}", *of.AdditionalProperties.Schema, visit)
	}
}

// isUnlimited reports whether a schema itself lets a value be as large as a request may be.
func isUnlimited(of apiextensionsv1.JSONSchemaProps) bool {
	preserves := of.XPreserveUnknownFields != nil && *of.XPreserveUnknownFields
	return preserves || of.XEmbeddedResource ||
		(of.Type == "string" || of.XIntOrString) && of.MaxLength == nil && len(of.Enum) == 0 ||
		of.Type == "array" && of.MaxItems == nil ||
		of.AdditionalProperties != nil && of.MaxProperties == nil
}
