package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// auditPolicy asks for one line for each request of a ServiceAccount; watches have a second
// one at their end. Those for Leases, which the operator renews every two seconds however many
// Headscales there are, are left out.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources: [{group: coordination.k8s.io, resources: [leases]}]
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
`

// auditLog is the API server's record of who asked for what. What was read of it is not
// read again.
type auditLog struct {
	path string
	file *os.File
	// lines reads the file, and unfinished is the beginning of a line that it ended with.
	lines      *bufio.Reader
	unfinished []byte
	users      map[string]counts
}

// newAuditLog writes the policy into a directory where the log will be, too.
func newAuditLog(dir string) (*auditLog, error) {
	if err := os.WriteFile(filepath.Join(dir, "audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	return &auditLog{path: filepath.Join(dir, "audit.log"), users: map[string]counts{}}, nil
}

// configure makes an API server keep the log, in one file.
func (a *auditLog) configure(server *envtest.APIServer) {
	server.Configure().
		Set("audit-policy-file", filepath.Join(filepath.Dir(a.path), "audit-policy.yaml")).
		Set("audit-log-path", a.path).
		Set("audit-log-maxsize", "10000")
}

// count returns a user's requests so far.
func (a *auditLog) count(user string) (counts, error) {
	if a.file == nil {
		file, err := os.Open(a.path)
		if err != nil {
			return counts{}, err
		}
		a.file, a.lines = file, bufio.NewReaderSize(file, 1<<16)
	}
	err := a.readOn()
	return a.users[user], err
}

// readOn counts what has come since the last time. The last line may be unfinished; it is
// counted the next time.
func (a *auditLog) readOn() error {
	for {
		part, err := a.lines.ReadBytes('\n')
		a.unfinished = append(a.unfinished, part...)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := a.add(a.unfinished); err != nil {
			return err
		}
		a.unfinished = a.unfinished[:0]
	}
}

// close ends reading.
func (a *auditLog) close() {
	if a.file != nil {
		_ = a.file.Close()
	}
}

// auditEvent is what is looked at in a line of the log.
type auditEvent struct {
	Stage, Verb    string
	User           struct{ Username string }
	ObjectRef      struct{ Resource, Subresource string }
	ResponseStatus struct{ Code int }
}

// add counts the request of a line.
func (a *auditLog) add(line []byte) error {
	var event auditEvent
	if err := json.Unmarshal(line, &event); err != nil {
		return err
	}
	total := a.users[event.User.Username]
	total.add(&event)
	a.users[event.User.Username] = total
	return nil
}

// counts are numbers of requests.
type counts struct {
	// requests are all of them.
	requests int
	// watches are those that stay open.
	watches int
	// created are writes by which an object came about that is no event; status and events are
	// writes of those, and other all other writes, those that failed among them.
	created, status, events, other int
}

// add counts a request. A watch counts when it begins, or is refused, and not when it ends.
func (c *counts) add(event *auditEvent) {
	if event.Verb == "watch" {
		if event.Stage == "ResponseComplete" && event.ResponseStatus.Code < http.StatusBadRequest {
			return
		}
		c.watches++
	} else if event.Stage == "ResponseStarted" {
		return
	}
	c.requests++
	switch {
	case slices.Contains([]string{"get", "list", "watch"}, event.Verb):
	case event.ObjectRef.Resource == "events":
		c.events++
	case event.ObjectRef.Subresource == "status":
		c.status++
	case event.ResponseStatus.Code == http.StatusCreated:
		c.created++
	default:
		c.other++
	}
}

// writes are the requests that change something.
func (c counts) writes() int { return c.created + c.status + c.events + c.other }

// minus are the requests since an earlier count.
func (c counts) minus(earlier counts) counts {
	return counts{
		requests: c.requests - earlier.requests, watches: c.watches - earlier.watches,
		created: c.created - earlier.created, status: c.status - earlier.status,
		events: c.events - earlier.events, other: c.other - earlier.other,
	}
}
