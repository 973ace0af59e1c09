package docs_test

import (
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

var _ = Describe("docs/security.md", func() {
	It("lists the rights of the operator, and no others", func() {
		role := &rbacv1.ClusterRole{}
		Expect(yaml.UnmarshalStrict([]byte(readAll("config/rbac/role.yaml")), role)).To(Succeed())
		granted := map[string][]string{}
		for _, rule := range role.Rules {
			Expect(rule.ResourceNames).To(BeEmpty())
			for _, resource := range rule.Resources {
				granted[resource] = append(granted[resource], rule.Verbs...)
			}
		}
		told := map[string][]string{}
		for _, row := range rowsBelow("docs/security.md", "### The operator's rights") {
			for _, resource := range quoted(row[0]) {
				told[resource] = append(told[resource], quoted(row[1])...)
			}
		}
		for _, rights := range []map[string][]string{granted, told} {
			for _, verbs := range rights {
				slices.Sort(verbs)
			}
		}
		Expect(told).To(Equal(granted))
	})
})

// rowsBelow are the cells of the first table below a heading, without its head.
func rowsBelow(file, heading string) [][]string {
	GinkgoHelper()
	_, section, found := strings.Cut(readAll(file), "\n"+heading+"\n")
	Expect(found).To(BeTrue(), "%s: %s", file, heading)
	var rows [][]string
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "|") {
			rows = append(rows, strings.Split(strings.Trim(line, "|"), "|"))
		} else if len(rows) > 0 {
			break
		}
	}
	Expect(len(rows)).To(BeNumerically(">", 2), "%s: %s", file, heading)
	return rows[2:]
}

// quoted are the parts of a cell that stand in backquotes.
func quoted(cell string) []string {
	var parts []string
	for i, part := range strings.Split(cell, "`") {
		if i%2 == 1 {
			parts = append(parts, part)
		}
	}
	return parts
}
