package instance

import (
	"errors"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func TestAccess(t *testing.T) {
	selector := func(labels map[string]string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: labels}
	}
	expression := func(operator metav1.LabelSelectorOperator, values ...string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: operator, Values: values}}}
	}
	for name, test := range map[string]struct {
		namespaces v1beta1.AccessNamespaces
		labels     map[string]string
		want       bool
	}{
		"nothing":                       {},
		"an empty list and no selector": {namespaces: v1beta1.AccessNamespaces{Names: []string{}}},
		"an empty selector":             {namespaces: v1beta1.AccessNamespaces{Selector: &metav1.LabelSelector{}}},
		"empty labels":                  {namespaces: v1beta1.AccessNamespaces{Selector: selector(map[string]string{})}},
		"its name":                      {namespaces: v1beta1.AccessNamespaces{Names: []string{"x", "team-a"}}, want: true},
		"another name":                  {namespaces: v1beta1.AccessNamespaces{Names: []string{"team", "team-a2"}}},
		"its label":                     {namespaces: v1beta1.AccessNamespaces{Selector: selector(map[string]string{"team": "a"})}, labels: map[string]string{"team": "a"}, want: true},
		"a label that is gone":          {namespaces: v1beta1.AccessNamespaces{Selector: selector(map[string]string{"team": "a"})}},
		"another value":                 {namespaces: v1beta1.AccessNamespaces{Selector: selector(map[string]string{"team": "a"})}, labels: map[string]string{"team": "A"}},
		"a name or a label":             {namespaces: v1beta1.AccessNamespaces{Names: []string{"team-a"}, Selector: selector(map[string]string{"team": "b"})}, want: true},
		"an expression":                 {namespaces: v1beta1.AccessNamespaces{Selector: expression(metav1.LabelSelectorOpIn, "a", "b")}, labels: map[string]string{"team": "b"}, want: true},
		"an expression that is none":    {namespaces: v1beta1.AccessNamespaces{Selector: expression("Is", "a")}, labels: map[string]string{"team": "a"}},
		"no values":                     {namespaces: v1beta1.AccessNamespaces{Selector: expression(metav1.LabelSelectorOpIn)}, labels: map[string]string{"team": "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			headscale := &v1beta1.Headscale{Spec: v1beta1.HeadscaleSpec{Access: []v1beta1.AccessRule{{Namespaces: test.namespaces, Users: true}}}}
			headscale.Namespace = "headscale"
			namespace := Namespace{Name: "team-a", Labels: test.labels}
			g.Expect(AllowsUsers(headscale, namespace)).To(Equal(test.want))
			g.Expect(AllowsTag(headscale, namespace, "tag:a")).To(BeFalse(), "no tags")
			headscale.Spec.Access[0].Users = false
			g.Expect(AllowsUsers(headscale, namespace)).To(BeFalse())
			headscale.Namespace = "team-a"
			g.Expect(AllowsUsers(headscale, namespace)).To(BeTrue(), "its own namespace needs no entry")
			g.Expect(AllowsTag(headscale, namespace, "tag:a")).To(BeTrue())
		})
	}
}

func TestAllowsTag(t *testing.T) {
	for pattern, tags := range map[v1beta1.TagPattern]map[string]bool{
		"tag:web":      {"tag:web": true, "tag:Web": false, "tag:web-1": false, "tag:we": false, "web": false},
		"tag:team-a-*": {"tag:team-a-x": true, "tag:team-a-": false, "tag:team-a": false, "tag:TEAM-A-x": false, "tag:team-a-X": true, "tag:team-ab": false, "tag:team-a-*": true},
		"tag:*":        {"tag:x": true, "tag:": false, "x": false},
	} {
		for tag, want := range tags {
			t.Run(string(pattern)+" "+tag, func(t *testing.T) {
				headscale := &v1beta1.Headscale{Spec: v1beta1.HeadscaleSpec{Access: []v1beta1.AccessRule{
					{Namespaces: v1beta1.AccessNamespaces{Names: []string{"team-a"}}, Tags: []v1beta1.TagPattern{"tag:other", pattern}},
				}}}
				NewWithT(t).Expect(AllowsTag(headscale, Namespace{Name: "team-a"}, tag)).To(Equal(want))
			})
		}
	}
}

func TestNotAllowedNamesTheEntry(t *testing.T) {
	g := NewWithT(t)
	headscale := &v1beta1.Headscale{}
	headscale.Namespace, headscale.Name = "hs", "headscale"
	headscale.Spec.Access = []v1beta1.AccessRule{{Namespaces: v1beta1.AccessNamespaces{
		Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Is"}}},
	}}}
	g.Expect(notAllowed(headscale, Namespace{Name: "team-a"}, "users: true")).To(MatchError(And(
		HavePrefix("Headscale hs/headscale does not give namespace team-a access: its spec.access needs an entry with namespaces.names: [team-a] and users: true"),
		ContainSubstring("of its entries, 1 have a namespaces.selector that cannot be used"))))
}

// Access that the cache has still, and the API server no longer, is none: another team may have the namespace's name now.
func TestConfirm(t *testing.T) {
	g := NewWithT(t)
	scheme := runtime.NewScheme()
	g.Expect(v1beta1.AddToScheme(scheme)).To(Succeed())
	g.Expect(corev1.AddToScheme(scheme)).To(Succeed())
	byLabel := func(team string) *v1beta1.Headscale {
		return &v1beta1.Headscale{
			ObjectMeta: metav1.ObjectMeta{Namespace: "tailnet", Name: "headscale"},
			Spec: v1beta1.HeadscaleSpec{Access: []v1beta1.AccessRule{{
				Users: true, Tags: []v1beta1.TagPattern{"tag:a"},
				Namespaces: v1beta1.AccessNamespaces{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": team}}},
			}}},
		}
	}
	namespace := func(team string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "guest", Labels: map[string]string{"team": team}}}
	}
	for name, test := range map[string]struct {
		live    []client.Object
		refused string
	}{
		"all as it was":     {live: []client.Object{byLabel("a"), namespace("a")}},
		"another namespace": {live: []client.Object{byLabel("a"), namespace("b")}, refused: v1beta1.ReasonNotAllowed},
		"no namespace":      {live: []client.Object{byLabel("a")}, refused: v1beta1.ReasonNotAllowed},
		"another entry":     {live: []client.Object{byLabel("b"), namespace("a")}, refused: v1beta1.ReasonNotAllowed},
		"no Headscale":      {live: []client.Object{namespace("a")}, refused: v1beta1.ReasonNoHeadscale},
	} {
		live := fake.NewClientBuilder().WithScheme(scheme).WithObjects(test.live...).Build()
		cached := byLabel("a")
		i := &Instance{
			Headscale: cached, Namespace: Namespace{Name: "guest", Labels: map[string]string{"team": "a"}},
			name: client.ObjectKeyFromObject(cached), in: &Instances{Options: Options{Live: live, AllNamespaces: true}},
		}
		for _, err := range []error{i.ConfirmUsers(t.Context()), i.ConfirmKeys(t.Context(), false, []string{"tag:a"})} {
			refused, _ := errors.AsType[*Problem](err)
			g.Expect(refused == nil).To(Equal(test.refused == ""), name)
			g.Expect(refused).To(Or(BeNil(), HaveField("Because", test.refused)), name)
		}
		i.Namespace.Name = "tailnet"
		g.Expect(i.ConfirmUsers(t.Context())).To(Succeed(), "its own namespace")
	}
}
