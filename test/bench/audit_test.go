package main

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/audit"
)

// auditLine is a line of a log, as the API server writes them.
func auditLine(verb, resource, subresource, code string) string {
	return `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete",` +
		`"requestURI":"/apis","verb":"` + verb + `","user":{"username":"a","groups":["system:serviceaccounts"]},` +
		`"objectRef":{"resource":"` + resource + `","namespace":"bench","name":"x","subresource":"` + subresource + `"},` +
		`"responseStatus":{"metadata":{},"code":` + code + `}}` + "\n"
}

func TestRequestsAreCountedByWhatTheyDo(t *testing.T) {
	for name, test := range map[string]struct {
		line string
		want counts
	}{
		"a read":            {auditLine("get", "secrets", "", "404"), counts{requests: 1}},
		"a list":            {auditLine("list", "secrets", "", "200"), counts{requests: 1}},
		"an applied object": {auditLine("patch", "services", "", "201"), counts{requests: 1, writes: 1, created: 1}},
		"a changed object":  {auditLine("patch", "services", "", "200"), counts{requests: 1, writes: 1}},
		"a refused object":  {auditLine("create", "services", "", "403"), counts{requests: 1, writes: 1}},
		"a deleted object":  {auditLine("delete", "services", "", "200"), counts{requests: 1, writes: 1}},
		"a status":          {auditLine("patch", "headscales", "status", "200"), counts{requests: 1, writes: 1}},
		"an event":          {auditLine("create", "events", "", "201"), counts{requests: 1, writes: 1}},
		"a watch":           {auditLine("watch", "secrets", "", "200"), counts{}},
		"nothing":           {"", counts{}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			log, err := audit.New(t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(os.WriteFile(log.Path(), []byte(test.line), 0o600)).To(Succeed())
			l := &lab{log: log}
			g.Expect(l.count()).To(Equal(test.want))
			g.Expect(l.count()).To(Equal(test.want), "nothing is counted twice")
		})
	}
}
