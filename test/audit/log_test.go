package audit_test

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/audit"
)

// line is one of a log, as the API server writes them.
const line = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete",` +
	`"requestURI":"/apis","verb":"patch","user":{"username":"a","groups":["system:serviceaccounts"]},"userAgent":"manager/v1",` +
	`"objectRef":{"resource":"services","namespace":"here","name":"x"},"responseStatus":{"metadata":{},"code":201},` +
	`"requestReceivedTimestamp":"2026-11-24T05:00:00.000001Z","stageTimestamp":"2026-11-24T05:00:00.000002Z"}` + "\n"

func newLog(t *testing.T, text string) *audit.Log {
	t.Helper()
	log, err := audit.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log.Path(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return log
}

func read(g Gomega, log *audit.Log) []*audit.Event {
	var events []*audit.Event
	g.Expect(log.Read(func(event *audit.Event) { events = append(events, event) })).To(Succeed())
	return events
}

func TestALineIsRead(t *testing.T) {
	g := NewWithT(t)
	events := read(g, newLog(t, line))
	g.Expect(events).To(HaveLen(1))
	event := events[0]
	g.Expect(event.Created()).To(BeTrue())
	g.Expect(event.UserAgent).To(Equal("manager/v1"))
	g.Expect(event.ObjectRef.Namespace + "/" + event.ObjectRef.Name).To(Equal("here/x"))
	g.Expect(event.Staged.Sub(event.Received).Microseconds()).To(BeEquivalentTo(1))
}

func TestAnUnfinishedLineIsReadWhenItIsWhole(t *testing.T) {
	g := NewWithT(t)
	log := newLog(t, line+line[:40])
	g.Expect(read(g, log)).To(HaveLen(1))

	file, err := os.OpenFile(log.Path(), os.O_APPEND|os.O_WRONLY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = file.WriteString(line[40:] + line)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(file.Close()).To(Succeed())
	g.Expect(read(g, log)).To(HaveLen(2))
	g.Expect(read(g, log)).To(BeEmpty(), "nothing is read twice")
}

func TestALineThatIsNoneIsAnError(t *testing.T) {
	err := newLog(t, "nonsense\n").Read(func(*audit.Event) {})
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("reading the audit log")))
}
