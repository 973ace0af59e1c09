package docs_test

import (
	"encoding/json"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/test/pages"
)

// schema is what matters here of the chart's values.schema.json.
type schema struct {
	// Type is a name, or a list of names; nil: any.
	Type       any               `json:"type"`
	Properties map[string]schema `json:"properties"`
	never      bool
}

// UnmarshalJSON reads a schema, which may also be true (anything is right) or false.
func (s *schema) UnmarshalJSON(text []byte) error {
	type fields schema
	switch string(text) {
	case "true":
		return nil
	case "false":
		s.never = true
		return nil
	default:
		return json.Unmarshal(text, (*fields)(s))
	}
}

// checkValues sees to it that the chart has the values that a block sets.
func checkValues(b pages.Block) {
	GinkgoHelper()
	var chart schema
	Expect(json.Unmarshal([]byte(readAll("charts/headscale-operator/values.schema.json")), &chart)).To(Succeed())
	values := map[string]any{}
	Expect(yaml.UnmarshalStrict([]byte(b.Text), &values)).To(Succeed(), describeBlock(b))
	Expect(unknownValues(chart, values, "")).To(BeEmpty(), describeBlock(b))
}

// unknownValues are those that the schema does not have, or has as something else.
func unknownValues(known schema, values map[string]any, path string) []string {
	if known.Properties == nil {
		return nil
	}
	var unknown []string
	for name, value := range values {
		property, ok := known.Properties[name]
		section, isSection := value.(map[string]any)
		_, isFlag := value.(bool)
		switch {
		case !ok || property.never:
			unknown = append(unknown, path+name+" is no value of the chart")
		case property.Type == nil:
		case isSection != (property.Type == "object"), isFlag != (property.Type == "boolean"):
			unknown = append(unknown, fmt.Sprintf("%s%s must be of the type %v", path, name, property.Type))
		case isSection:
			unknown = append(unknown, unknownValues(property, section, path+name+".")...)
		}
	}
	return unknown
}
