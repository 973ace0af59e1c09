// Package audit reads an API server's audit log: who asked for what, request by
// request.
package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// Names of the files in the log's directory.
const (
	policyName = "audit-policy.yaml"
	logName    = "audit.log"
)

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

// Writes tells whether the request was one to change something.
func (e *Event) Writes() bool {
	return !slices.Contains([]string{"get", "list", "watch"}, e.Verb)
}

// Created tells whether an object came about by the request.
func (e *Event) Created() bool {
	return e.Writes() && e.ResponseStatus.Code == http.StatusCreated
}

// Log is an audit log. What was read of it is not read again.
type Log struct {
	dir  string
	file *os.File
	// lines reads the file, and unfinished is the beginning of a line that it ended with.
	lines      *bufio.Reader
	unfinished []byte
}

// New makes a log in a directory, where it writes its policy.
func New(dir string) (*Log, error) {
	if err := os.WriteFile(filepath.Join(dir, policyName), []byte(policy), 0o600); err != nil {
		return nil, fmt.Errorf("writing the audit policy: %w", err)
	}
	return &Log{dir: dir}, nil
}

// Configure makes an API server keep the log, in one file.
func (l *Log) Configure(server *envtest.APIServer) {
	server.Configure().
		Set("audit-policy-file", filepath.Join(l.dir, policyName)).
		Set("audit-log-path", l.Path()).
		Set("audit-log-maxsize", "10000")
}

// Path is the file that the API server writes.
func (l *Log) Path() string { return filepath.Join(l.dir, logName) }

// Read hands on what has come since the last time. The last line may be unfinished; it
// is read the next time.
func (l *Log) Read(take func(*Event)) error {
	if l.file == nil {
		file, err := os.Open(l.Path())
		if err != nil {
			return err
		}
		l.file, l.lines = file, bufio.NewReaderSize(file, 1<<16)
	}
	for {
		part, err := l.lines.ReadBytes('\n')
		l.unfinished = append(l.unfinished, part...)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		event := &Event{}
		if err := json.Unmarshal(l.unfinished, event); err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		l.unfinished = l.unfinished[:0]
		take(event)
	}
}

// Close ends reading.
func (l *Log) Close() {
	if l.file != nil {
		_ = l.file.Close()
	}
}
