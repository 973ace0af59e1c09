package headscale

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// unasked are the rights that the operator makes no request with, each with why it has
// to have them. That it has to is shown below, too.
var unasked = map[string]string{
	"create secrets": "granted to the API Key Manager",
	"update secrets": "granted to the API Key Manager",
	"update headscales/finalizers.headscale.infrado.cloud": "asked for by clusters with OwnerReferencesPermissionEnforcement",
}

// ofUsers are the resources that only the controllers of what exists within a Headscale ask for. Their
// own suites show that they make use of the rights on them.
var ofUsers = regexp.MustCompile(` (namespaces|headscale(user|preauthkey|policie)s(/status)?\.headscale\.infrado\.cloud)$`)

// used are the rights that operators of this suite have made use of.
var used = struct {
	sync.Mutex
	rights map[string]bool
}{rights: map[string]bool{}}

// rightsOfRole lists the rights of a role, each as a verb and a resource.
func rightsOfRole(rules []rbacv1.PolicyRule) []string {
	rights := map[string]bool{}
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					rights[right(verb, group, resource)] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(rights))
}

// right names what somebody may do.
func right(verb, group, resource string) string {
	return strings.TrimSuffix(verb+" "+resource+"."+group, ".")
}

// shippedRole is config/rbac/role.yaml.
func shippedRole() *rbacv1.ClusterRole {
	GinkgoHelper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "config", "rbac", "role.yaml"))
	Expect(err).NotTo(HaveOccurred())
	role := &rbacv1.ClusterRole{}
	Expect(yaml.UnmarshalStrict(raw, role)).To(Succeed())
	return role
}

// noteRights notes which rights requests need that the API server lets through.
type noteRights struct{ next http.RoundTripper }

func (n noteRights) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := n.next.RoundTrip(request)
	if err == nil && response.StatusCode == http.StatusForbidden {
		return response, nil
	}
	// A request without an answer is one in whose midst the operator was stopped, by a spec
	// that has seen what it did.
	used.Lock()
	defer used.Unlock()
	for _, right := range rightsFor(request, err == nil && response.StatusCode == http.StatusCreated) {
		used.rights[right] = true
	}
	return response, err
}

// rightsFor are the rights that a request needs, which may make an object.
func rightsFor(request *http.Request, made bool) []string {
	group, rest := "", ""
	switch parts := strings.SplitN(strings.Trim(request.URL.Path, "/"), "/", 4); {
	case len(parts) > 2 && parts[0] == "api":
		rest = strings.Join(parts[2:], "/")
	case len(parts) > 3 && parts[0] == "apis":
		group, rest = parts[1], parts[3]
	default: // discovery, which everybody may
		return nil
	}
	parts := strings.Split(rest, "/")
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	resource, query := parts[0], request.URL.Query()
	if len(parts) > 2 {
		resource += "/" + parts[2]
	}
	var verbs []string
	switch {
	case request.Method == http.MethodGet && query.Has("watch"):
		verbs = []string{"watch"}
		if query.Get("sendInitialEvents") == "true" {
			// What it does on a Kubernetes without this is list.
			verbs = append(verbs, "list")
		}
	case request.Method == http.MethodGet && len(parts) == 1:
		verbs = []string{"list"}
	case request.Method == http.MethodPatch && made:
		verbs = []string{"patch", "create"}
	default:
		verbs = []string{map[string]string{
			http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
		}[request.Method]}
	}
	for i := range verbs {
		verbs[i] = right(verbs[i], group, resource)
	}
	return verbs
}

// Only all specs together make use of every right.
var _ = ReportAfterSuite("The operator's role is the least that passes", func(report Report) {
	suite := report.SuiteConfig
	narrowed := len(suite.FocusStrings)+len(suite.SkipStrings)+len(suite.FocusFiles)+len(suite.SkipFiles) > 0 || suite.LabelFilter != "" || report.SuiteHasProgrammaticFocus
	if narrowed || suite.ParallelTotal > 1 || !report.SuiteSucceeded {
		return
	}
	used.Lock()
	defer used.Unlock()
	var idle []string
	for _, right := range rightsOfRole(shippedRole().Rules) {
		_, excepted := unasked[right]
		Expect(excepted && used.rights[right]).To(BeFalse(), "%q is made use of: take it out of unasked", right)
		if !excepted && !used.rights[right] && !ofUsers.MatchString(right) {
			idle = append(idle, right)
		}
	}
	Expect(idle).To(BeEmpty(), "config/rbac/role.yaml has rights that no spec of this suite has made use of")
})

var _ = Describe("A right that the operator makes no request with", func() {
	for missing, why := range unasked {
		It("cannot be taken away: "+missing+", which is "+why, func(ctx context.Context) {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "less-"}}
			Expect(admin.Create(ctx, namespace)).To(Succeed())
			role := shippedRole()
			role.Name = namespace.Name
			role.Rules = without(role.Rules, missing)
			user := "less:" + namespace.Name
			grant(ctx, role, user)
			startOperatorAs(user, namespace.Name)
			Expect(create(ctx, namespace.Name, shortest)).To(Succeed())
			Eventually(condition(ctx, namespace.Name, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
				be("False", v1beta1.ReasonReconcileFailed, "forbidden"))
		})
	}
})

var _ = Describe("A right that is needed rarely", func() {
	It("is that on the metrics Service, where there is nothing to measure any more", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(func() error {
			return admin.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: "headscale-metrics"}, &corev1.Service{})
		}).WithContext(ctx).Should(Succeed())
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {auto_manage: false}, config: {metrics_listen_addr: ""}}}`)).To(Succeed())
		Eventually(func() bool {
			return apierrors.IsNotFound(admin.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: "headscale-metrics"}, &corev1.Service{}))
		}).WithContext(ctx).Should(BeTrue())
	})

	It("is that on an event of something that happens again", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		set := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")
		Eventually(set).WithContext(ctx).ShouldNot(BeNil())
		for range 3 {
			old := set(NewGomega(Fail))
			Expect(admin.Delete(ctx, old)).To(Succeed())
			Eventually(set).WithContext(ctx).Should(HaveField("UID", Not(Equal(old.UID))))
		}
		Eventually(func(g Gomega) {
			list := &eventsv1.EventList{}
			g.Expect(admin.List(ctx, list, client.InNamespace(o.namespace))).To(Succeed())
			g.Expect(list.Items).To(ContainElement(And(HaveField("Reason", v1beta1.EventCreated), HaveField("Series", Not(BeNil())))))
		}).WithContext(ctx).Should(Succeed())
	})
})

// without is the rules of a role without one right.
func without(rules []rbacv1.PolicyRule, missing string) []rbacv1.PolicyRule {
	GinkgoHelper()
	var kept []rbacv1.PolicyRule
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					if right(verb, group, resource) != missing {
						kept = append(kept, rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}})
					}
				}
			}
		}
	}
	Expect(kept).To(HaveLen(len(rightsOfRole(rules))-1), fmt.Sprintf("the role has %q", missing))
	return kept
}
