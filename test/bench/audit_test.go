package main

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/audit"
)

// auditLine is a line of a log, as the API server writes them.
func auditLine(user, stage, verb, resource, subresource, code string) string {
	return `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"` + stage +
		`","requestURI":"/apis","verb":"` + verb + `","user":{"username":"` + user + `","groups":["system:serviceaccounts"]},` +
		`"objectRef":{"resource":"` + resource + `","namespace":"bench","name":"x","subresource":"` + subresource + `"},` +
		`"responseStatus":{"metadata":{},"code":` + code + `}}` + "\n"
}

func TestRequestsAreCountedByWhatTheyDo(t *testing.T) {
	for name, test := range map[string]struct {
		lines string
		want  counts
	}{
		"a read":            {auditLine("a", "ResponseComplete", "get", "secrets", "", "404"), counts{requests: 1}},
		"a list":            {auditLine("a", "ResponseComplete", "list", "secrets", "", "200"), counts{requests: 1}},
		"an applied object": {auditLine("a", "ResponseComplete", "patch", "services", "", "201"), counts{requests: 1, created: 1}},
		"a changed object":  {auditLine("a", "ResponseComplete", "patch", "services", "", "200"), counts{requests: 1, other: 1}},
		"a refused object":  {auditLine("a", "ResponseComplete", "create", "services", "", "403"), counts{requests: 1, other: 1}},
		"a status":          {auditLine("a", "ResponseComplete", "patch", "headscales", "status", "200"), counts{requests: 1, status: 1}},
		"an event":          {auditLine("a", "ResponseComplete", "create", "events", "", "201"), counts{requests: 1, events: 1}},
		"a watch that runs": {auditLine("a", "ResponseStarted", "watch", "secrets", "", "200"), counts{requests: 1, watches: 1}},
		"a watch that ended": {
			auditLine("a", "ResponseStarted", "watch", "secrets", "", "200") + auditLine("a", "ResponseComplete", "watch", "secrets", "", "200"),
			counts{requests: 1, watches: 1},
		},
		"a refused watch":  {auditLine("a", "ResponseComplete", "watch", "secrets", "", "403"), counts{requests: 1, watches: 1}},
		"somebody else":    {auditLine("b", "ResponseComplete", "get", "secrets", "", "200"), counts{}},
		"nothing":          {"", counts{}},
		"a panic":          {auditLine("a", "Panic", "patch", "services", "", "500"), counts{requests: 1, other: 1}},
		"a deleted object": {auditLine("a", "ResponseComplete", "delete", "services", "", "200"), counts{requests: 1, other: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			log := &lab{log: writeLog(t, test.lines), users: map[string]counts{}}
			g.Expect(log.count("a")).To(Equal(test.want))
			g.Expect(log.count("a")).To(Equal(test.want), "nothing is counted twice")
			g.Expect(test.want.writes()).To(Equal(test.want.created + test.want.status + test.want.events + test.want.other))
		})
	}
}

// writeLog makes a log of these lines.
func writeLog(t *testing.T, lines string) *audit.Log {
	t.Helper()
	log, err := audit.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log.Path(), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return log
}
