package main

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// operatorUser is who the operator is with config/default.
const operatorUser = "system:serviceaccount:headscale-operator-system:headscale-operator-controller-manager"

// auditPolicy asks for one line for each request.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// auditLog is the API server's record of who asked for what.
type auditLog struct {
	path string
}

// newAuditLog writes the policy into a directory where the log will be, too.
func newAuditLog(dir string) (*auditLog, error) {
	if err := os.WriteFile(filepath.Join(dir, "audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	return &auditLog{filepath.Join(dir, "audit.log")}, nil
}

// configure makes an API server keep the log.
func (a *auditLog) configure(server *envtest.APIServer) {
	server.Configure().
		Set("audit-policy-file", filepath.Join(filepath.Dir(a.path), "audit-policy.yaml")).
		Set("audit-log-path", a.path)
}

// counts are numbers of requests.
type counts struct {
	requests, writes int
}

// minus are the requests since an earlier count.
func (c counts) minus(earlier counts) counts {
	return counts{c.requests - earlier.requests, c.writes - earlier.writes}
}

// count counts the operator's requests so far. Those for its own Lease, which it renews
// every two seconds however many Headscales there are, are left out.
func (a *auditLog) count() (counts, error) {
	file, err := os.Open(a.path)
	if err != nil {
		return counts{}, err
	}
	defer func() { _ = file.Close() }()
	var total counts
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			Stage, Verb string
			User        struct{ Username string }
			ObjectRef   struct{ Resource string }
		}
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			// The last line may be unfinished; it is counted the next time.
			continue
		}
		if event.User.Username != operatorUser || event.ObjectRef.Resource == "leases" || event.Stage == "ResponseStarted" {
			continue
		}
		total.requests++
		if !slices.Contains([]string{"get", "list", "watch"}, event.Verb) {
			total.writes++
		}
	}
	return total, lines.Err()
}
