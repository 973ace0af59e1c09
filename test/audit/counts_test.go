package audit_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/audit"
)

// requestLine is a line of a log, as the API server writes them.
func requestLine(verb, resource, subresource, code string) string {
	return `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete",` +
		`"requestURI":"/apis","verb":"` + verb + `","user":{"username":"a","groups":["system:serviceaccounts"]},` +
		`"objectRef":{"resource":"` + resource + `","namespace":"bench","name":"x","subresource":"` + subresource + `"},` +
		`"responseStatus":{"metadata":{},"code":` + code + `}}` + "\n"
}

func TestRequestsAreCountedByWhatTheyDo(t *testing.T) {
	for name, test := range map[string]struct {
		line string
		want audit.Counts
	}{
		"a read":            {requestLine("get", "secrets", "", "404"), audit.Counts{All: 1}},
		"a list":            {requestLine("list", "secrets", "", "200"), audit.Counts{All: 1}},
		"an applied object": {requestLine("patch", "services", "", "201"), audit.Counts{All: 1, Writes: 1, Created: 1}},
		"a changed object":  {requestLine("patch", "services", "", "200"), audit.Counts{All: 1, Writes: 1}},
		"a refused object":  {requestLine("create", "services", "", "403"), audit.Counts{All: 1, Writes: 1}},
		"a deleted object":  {requestLine("delete", "services", "", "200"), audit.Counts{All: 1, Writes: 1}},
		"a status":          {requestLine("patch", "headscales", "status", "200"), audit.Counts{All: 1, Writes: 1}},
		"an event":          {requestLine("create", "events", "", "201"), audit.Counts{All: 1, Writes: 1}},
		"a watch":           {requestLine("watch", "secrets", "", "200"), audit.Counts{}},
		"nothing":           {"", audit.Counts{}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			log := newLog(t, test.line)
			g.Expect(log.Count()).To(Equal(test.want))
			g.Expect(log.Count()).To(Equal(test.want), "nothing is counted twice")
		})
	}
}

func TestRequestsSinceACount(t *testing.T) {
	NewWithT(t).Expect(audit.Counts{All: 9, Writes: 5, Created: 2}.Since(audit.Counts{All: 4, Writes: 3, Created: 2})).
		To(Equal(audit.Counts{All: 5, Writes: 2}))
}
