package instancetest

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// Rights notes which rights the operators of a suite make use of.
type Rights struct {
	// Resources are those that it is about, such as headscaleusers.
	Resources []string

	lock sync.Mutex
	used map[string]bool
}

// Wrap notes the rights that requests need which the API server lets through. It is for
// Operator.Wrap.
func (r *Rights) Wrap(next http.RoundTripper) http.RoundTripper { return &noteRights{r, next} }

type noteRights struct {
	rights *Rights
	next   http.RoundTripper
}

// RoundTrip makes a request, and notes it.
func (n *noteRights) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := n.next.RoundTrip(request)
	if err != nil || response.StatusCode != http.StatusForbidden {
		n.rights.note(request)
	}
	return response, err
}

// asked finds the resource, an object's name and a subresource in the path of a request.
var asked = regexp.MustCompile(`/v1(?:beta1)?(?:/namespaces/[^/]+)?/([a-z]+)(/[^/]+)?(/[a-z]+)?$`)

// note notes the right that a request needs.
func (r *Rights) note(request *http.Request) {
	found := asked.FindStringSubmatch(request.URL.Path)
	if len(found) == 0 || !slices.Contains(r.Resources, found[1]) {
		return
	}
	verb, query := strings.ToLower(request.Method), request.URL.Query()
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.used == nil {
		r.used = map[string]bool{}
	}
	if verb == "get" && found[2] == "" {
		verb = "list"
		if query.Has("watch") {
			verb = "watch"
		}
		if query.Get("sendInitialEvents") == "true" {
			r.used["list "+found[1]] = true // what it does on a Kubernetes without this
		}
	}
	r.used[verb+" "+found[1]+found[3]] = true
}

// DescribeLeast has the rights that the operator is shipped with be those that the suite made use
// of. Only all specs together make use of every one.
func (r *Rights) DescribeLeast(c *Cluster) bool {
	return ReportAfterSuite("The operator's rights on "+strings.Join(r.Resources, ", ")+" are the least that passes", func(report Report) {
		suite := report.SuiteConfig
		if len(suite.FocusStrings)+len(suite.SkipStrings)+len(suite.FocusFiles)+len(suite.SkipFiles) > 0 || !report.SuiteSucceeded {
			return
		}
		granted := map[string]bool{}
		for _, rule := range c.OperatorRole().Rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					granted[verb+" "+resource] = true
				}
			}
		}
		r.lock.Lock()
		defer r.lock.Unlock()
		Expect(r.used).To(Equal(r.of(granted)))
	})
}

// of are the rights on the resources.
func (r *Rights) of(granted map[string]bool) map[string]bool {
	own := map[string]bool{}
	for right := range granted {
		for _, resource := range r.Resources {
			if _, on, _ := strings.Cut(right, " "); on == resource || strings.HasPrefix(on, resource+"/") {
				own[right] = true
			}
		}
	}
	return own
}
