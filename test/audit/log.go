// Package audit reads an API server's audit log: who asked for what, request by
// request.
package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// policy asks for one line for each request of a ServiceAccount; watches have a second
// one at their end. Those for Leases, which an operator renews every two seconds however
// many objects there are, are left out.
const policy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources: [{group: coordination.k8s.io, resources: [leases]}]
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
`

// Event is what can be looked at in a line of the log.
type Event struct {
	// Stage is ResponseStarted where a watch begins, and ResponseComplete at the end of
	// every request.
	Stage string `json:"stage"`
	// Verb is Kubernetes' own, such as patch.
	Verb string `json:"verb"`
	// UserAgent is what the client calls itself.
	UserAgent string `json:"userAgent"`
	User      struct {
		Username string `json:"username"`
	} `json:"user"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	// Received and Staged are when the request came, and when it came to the stage.
	Received time.Time `json:"requestReceivedTimestamp"`
	Staged   time.Time `json:"stageTimestamp"`
}

// Writes reports whether the request was one to change something.
func (e *Event) Writes() bool {
	return !slices.Contains([]string{"get", "list", "watch"}, e.Verb)
}

// Created reports whether an object came about by the request.
func (e *Event) Created() bool {
	return e.Writes() && e.ResponseStatus.Code == http.StatusCreated
}

// Log is an audit log in a directory. What was read of it, up to an offset, is not read again.
type Log struct {
	dir    string
	offset int64
	counts Counts
}

// New makes a log in a directory, where it writes its policy.
func New(dir string) (*Log, error) {
	l := &Log{dir: dir}
	if err := os.WriteFile(l.policyPath(), []byte(policy), 0o600); err != nil {
		return nil, fmt.Errorf("writing the audit policy: %w", err)
	}
	return l, nil
}

// Configure makes an API server keep the log, in one file.
func (l *Log) Configure(server *envtest.APIServer) {
	server.Configure().
		Set("audit-policy-file", l.policyPath()).
		Set("audit-log-path", l.Path()).
		Set("audit-log-maxsize", "10000")
}

// Path is the file that the API server writes.
func (l *Log) Path() string { return filepath.Join(l.dir, "audit.log") }

func (l *Log) policyPath() string { return filepath.Join(l.dir, "audit-policy.yaml") }

// Read calls take with what has come since the last time. The last line may be unfinished; it
// is read the next time.
func (l *Log) Read(take func(*Event)) error {
	file, err := os.Open(l.Path())
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.NewSectionReader(file, l.offset, math.MaxInt64-l.offset))
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		event := &Event{}
		if err := json.Unmarshal(line, event); err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		l.offset += int64(len(line))
		take(event)
	}
	return nil
}

// Counts are numbers of requests, but for watches: all, those that change something, and those that
// created an object which is no event.
type Counts struct{ All, Writes, Created int }

// Count reads what has come since the last time, and returns the requests since the beginning.
func (l *Log) Count() (Counts, error) {
	err := l.Read(l.counts.add)
	return l.counts, err
}

// add counts a request.
func (c *Counts) add(event *Event) {
	if event.Verb == "watch" {
		return
	}
	c.All++
	if event.Writes() {
		c.Writes++
	}
	if event.Created() && event.ObjectRef.Resource != "events" && event.ObjectRef.Subresource == "" {
		c.Created++
	}
}

// Since are the requests after an earlier count.
func (c Counts) Since(earlier Counts) Counts {
	return Counts{c.All - earlier.All, c.Writes - earlier.Writes, c.Created - earlier.Created}
}
