package instancetest

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
)

// SecretReads are the requests of an operator for one Secret.
type SecretReads struct {
	lock  sync.Mutex
	paths []string
}

// roundTrip is an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip makes the request.
func (r roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// WatchSecretReads notes the requests of operators that are started before the function that is
// returned is called.
func (c *Cluster) WatchSecretReads() (reads *SecretReads, enough func()) {
	reads = &SecretReads{}
	before := c.Config.WrapTransport
	c.Config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(request *http.Request) (*http.Response, error) {
			if strings.Contains(request.URL.Path, "/secrets/") {
				reads.lock.Lock()
				reads.paths = append(reads.paths, request.URL.Path)
				reads.lock.Unlock()
			}
			return next.RoundTrip(request)
		})
	})
	enough = func() { c.Config.WrapTransport = before }
	DeferCleanup(enough)
	return reads, enough
}

// Of is how many requests were for the API key of the Headscale of a namespace.
func (r *SecretReads) Of(namespace string) int {
	r.lock.Lock()
	defer r.lock.Unlock()
	return len(slices.DeleteFunc(slices.Clone(r.paths), func(path string) bool {
		return !strings.HasSuffix(path, "/namespaces/"+namespace+"/secrets/headscale-api-key")
	}))
}
