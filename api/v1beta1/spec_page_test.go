package v1beta1_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// kinds are the singular names of all kinds, after which their pages are named.
var kinds = []string{"headscale", "headscalepolicy", "headscalepreauthkey", "headscaleuser"}

// specPage is the page about a resource.
func specPage(g Gomega, kind string) string {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "spec", kind+".md"))
	g.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// schema is that of a kind, as it is installed.
func schema(g Gomega, kind string) apiextensionsv1.JSONSchemaProps {
	text, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "headscale.infrado.cloud_"+plural(kind)+".yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	definition := &apiextensionsv1.CustomResourceDefinition{}
	g.Expect(yaml.UnmarshalStrict(text, definition)).To(Succeed())
	return *definition.Spec.Versions[0].Schema.OpenAPIV3Schema
}

// plural is the name of the resource of a kind.
func plural(kind string) string {
	if stem, isOne := strings.CutSuffix(kind, "icy"); isOne {
		return stem + "icies"
	}
	return kind + "s"
}

// kubernetesOwn are the fields whose inside is Kubernetes' own.
var kubernetesOwn = []string{
	"spec.pod.affinity", "spec.pod.env", "spec.pod.tolerations", "spec.pod.topology_spread_constraints",
	"spec.pod.volume_mounts", "spec.pod.volumes", "spec.access[].namespaces.selector",
}

// fieldsOf lists every field below a path with its schema.
func fieldsOf(path string, of apiextensionsv1.JSONSchemaProps) map[string]apiextensionsv1.JSONSchemaProps {
	all := map[string]apiextensionsv1.JSONSchemaProps{}
	for property := range of.Properties {
		field := of.Properties[property]
		name := strings.TrimPrefix(path+"."+property, ".")
		if slices.Contains([]string{"apiVersion", "kind", "metadata"}, name) {
			continue
		}
		all[name] = field
		if slices.Contains(kubernetesOwn, name) {
			continue
		}
		inside, suffix := field, ""
		if field.Items != nil {
			inside, suffix = *field.Items.Schema, "[]"
		}
		maps.Copy(all, fieldsOf(name+suffix, inside))
	}
	return all
}

// rulesOf lists the messages of all rules in a schema.
func rulesOf(of apiextensionsv1.JSONSchemaProps) []string {
	var messages []string
	for _, rule := range of.XValidations {
		messages = append(messages, rule.Message)
	}
	for property := range of.Properties {
		messages = append(messages, rulesOf(of.Properties[property])...)
	}
	if of.Items != nil {
		messages = append(messages, rulesOf(*of.Items.Schema)...)
	}
	return messages
}

// rowsOf maps what stands in quotes in the first column of the page's tables to the row.
func rowsOf(page string) map[string]string {
	rows := map[string]string{}
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		first := strings.Split(line, "|")[1]
		for i, part := range strings.Split(first, "`") {
			if i%2 == 1 {
				rows[part] = line
			}
		}
	}
	return rows
}

// limitOf is the limit that a schema sets, or 0.
func limitOf(field apiextensionsv1.JSONSchemaProps) int64 {
	for _, limit := range []*int64{field.MaxLength, field.MaxItems, field.MaxProperties} {
		if limit != nil {
			return *limit
		}
	}
	return 0
}

func TestSpecPageHasEveryFieldDefaultAndLimit(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { checkFields(t, kind) })
	}
}

func checkFields(t *testing.T, kind string) {
	g := NewWithT(t)
	rows, fields := rowsOf(specPage(g, kind)), fieldsOf("", schema(g, kind))
	for name := range fields {
		field := fields[name]
		if rows[name] == "" {
			t.Errorf("the page has no row for the field %s", name)
		}
		if field.Default != nil && !slices.Contains([]string{`{}`, `""`}, string(field.Default.Raw)) && field.Type != "object" {
			g.Expect(rows[name]).To(ContainSubstring("| `"+strings.Trim(string(field.Default.Raw), `"`)+"` |"), "the default of %s", name)
		}
		if limit := limitOf(field); limit > 0 && strings.HasPrefix(name, "spec.") && !strings.HasSuffix(name, ".name") && !strings.HasSuffix(name, ".key") {
			g.Expect(rows[name]).To(ContainSubstring(fmt.Sprintf("at most %d", limit)), "the limit of %s", name)
		}
	}
	for name := range rows {
		_, known := fields[name]
		if !known && (strings.HasPrefix(name, "spec") || strings.HasPrefix(name, "status")) {
			t.Errorf("the page has the field %s, which the resource has not", name)
		}
	}
}

func TestSpecPageHasEveryRefusal(t *testing.T) {
	g := NewWithT(t)
	for _, kind := range kinds {
		page, rules := specPage(g, kind), rulesOf(schema(g, kind))
		g.Expect(rules).NotTo(BeEmpty())
		for _, message := range rules {
			if !strings.Contains(page, "“"+message+"”") {
				t.Errorf("the page of %s does not have the refusal %q", kind, message)
			}
		}
	}
}

// constantsOf maps the names of the string constants in this package that begin with one
// of the prefixes to their values. Constants made of others are not plain and are left out.
func constantsOf(g Gomega, prefixes ...string) map[string]string {
	constants := map[string]string{}
	files, err := filepath.Glob("*.go")
	g.Expect(err).NotTo(HaveOccurred())
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		g.Expect(err).NotTo(HaveOccurred())
		ast.Inspect(file, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(spec.Names[0].Name, p) }) {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				value, err := strconv.Unquote(literal.Value)
				g.Expect(err).NotTo(HaveOccurred())
				constants[spec.Names[0].Name] = value
			}
			return true
		})
	}
	return constants
}

func TestSpecPageHasEveryConditionReasonAndEvent(t *testing.T) {
	g := NewWithT(t)
	rows := map[string]string{}
	for _, kind := range kinds {
		maps.Copy(rows, rowsOf(specPage(g, kind)))
	}
	constants := constantsOf(g, "Condition", "Reason", "Event")
	g.Expect(constants).To(And(HaveKey("ConditionReady"), HaveKey("ReasonConflict")))
	for name, value := range constants {
		if rows[value] == "" {
			t.Errorf("no page has a row for %q, the constant %s", value, name)
		}
	}
}
