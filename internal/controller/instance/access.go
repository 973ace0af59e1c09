package instance

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Namespace is one that refers to a Headscale.
type Namespace struct {
	Name   string
	Labels map[string]string
	// Terminating is whether it is being deleted.
	Terminating bool
}

// AllowsUsers reports whether a namespace may have users of a Headscale.
func AllowsUsers(headscale *v1beta1.Headscale, namespace Namespace) bool {
	return headscale.Namespace == namespace.Name ||
		slices.ContainsFunc(rulesFor(headscale, namespace), func(rule v1beta1.AccessRule) bool { return rule.Users })
}

// AllowsTag reports whether pre-auth keys of a namespace may carry a tag of a Headscale.
func AllowsTag(headscale *v1beta1.Headscale, namespace Namespace, tag string) bool {
	return headscale.Namespace == namespace.Name ||
		slices.ContainsFunc(rulesFor(headscale, namespace), func(rule v1beta1.AccessRule) bool {
			return slices.ContainsFunc(rule.Tags, func(pattern v1beta1.TagPattern) bool { return matches(pattern, tag) })
		})
}

// matches reports whether a tag is one that a pattern allows. A '*' stands for at least one
// character: it is no tag that ends before it.
func matches(pattern v1beta1.TagPattern, tag string) bool {
	beginning, open := strings.CutSuffix(string(pattern), "*")
	if !open {
		return beginning == tag
	}
	return strings.HasPrefix(tag, beginning) && len(tag) > len(beginning)
}

// rulesFor are the rules of a Headscale that are about a namespace.
func rulesFor(headscale *v1beta1.Headscale, namespace Namespace) []v1beta1.AccessRule {
	var rules []v1beta1.AccessRule
	for i := range headscale.Spec.Access {
		if rule := &headscale.Spec.Access[i]; selects(&rule.Namespaces, namespace) {
			rules = append(rules, *rule)
		}
	}
	return rules
}

// selects reports whether a namespace is one of those that a rule is about. An empty selector,
// which elsewhere selects everything, selects nothing here.
func selects(namespaces *v1beta1.AccessNamespaces, namespace Namespace) bool {
	if slices.Contains(namespaces.Names, namespace.Name) {
		return true
	}
	if selector := namespaces.Selector; selector == nil || len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(namespaces.Selector)
	return err == nil && selector.Matches(labels.Set(namespace.Labels))
}

// notAllowed says which entry is missing for a namespace to do something.
func notAllowed(headscale *v1beta1.Headscale, namespace Namespace, entry string) error {
	text := fmt.Sprintf("Headscale %s/%s does not give namespace %s access: its spec.access needs an entry with namespaces.names: [%s] and %s",
		headscale.Namespace, headscale.Name, namespace.Name, namespace.Name, entry)
	if unreadable := unreadableSelectors(headscale); unreadable > 0 {
		text += fmt.Sprintf("; of its entries, %d have a namespaces.selector that cannot be used: "+
			"an operator must be one and values must fit it, as in {matchExpressions: [{key: team, operator: In, values: [a]}]}", unreadable)
	}
	return &Problem{Because: v1beta1.ReasonNotAllowed, Message: text, Lasting: true}
}

// unreadableSelectors is how many of a Headscale's selectors are none.
func unreadableSelectors(headscale *v1beta1.Headscale) int {
	unreadable := 0
	for i := range headscale.Spec.Access {
		if _, err := metav1.LabelSelectorAsSelector(headscale.Spec.Access[i].Namespaces.Selector); err != nil {
			unreadable++
		}
	}
	return unreadable
}
