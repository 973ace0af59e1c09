package monitoring_test

import (
	"maps"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/pages"
)

var _ = Describe("The page about monitoring", func() {
	It("lists the series that the programs have, with their labels", func() {
		page := string(read(NewGomega(Fail), "docs", "monitoring.md"))
		listed := map[string][]string{}
		for line := range strings.Lines(page) {
			if cells := strings.Split(line, "|"); strings.HasPrefix(line, "| `headscale_") && len(cells) > 4 {
				listed[pages.Quoted(cells[1])[0]] = pages.Quoted(cells[3])
			}
		}
		var names []string
		for name := range exposed {
			if strings.HasPrefix(name, "headscale_operator_") || strings.HasPrefix(name, "headscale_apikey_") {
				names = append(names, name)
			}
		}
		Expect(slices.Collect(maps.Keys(listed))).To(ConsistOf(names))
		for name, labels := range listed {
			Expect(labels).To(ConsistOf(exposed[name]), name)
		}
	})

	It("lists the alerts", func() {
		page := string(read(NewGomega(Fail), "docs", "monitoring.md"))
		for name, alert := range alerts(NewGomega(Fail)) {
			Expect(page).To(ContainSubstring("| ["+name+"](runbooks/"+name+".md) | "+alert.Labels["severity"]+" |"), name)
		}
	})
})
