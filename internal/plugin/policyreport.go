package plugin

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/policy"
)

// policyReport is the policy that a Headscale has, and the one that results from its
// HeadscalePolicies.
type policyReport struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// InForce is the policy that Headscale has, as it was set; "": none, which allows everything.
	// Null where it is not known.
	InForce *string `json:"inForce"`
	// SetAt is when it was set, by Headscale's clock.
	SetAt *metav1.Time `json:"setAt,omitempty"`
	// Joined is the policy that the HeadscalePolicies make; null where they make none, or that is
	// not known.
	Joined *string `json:"joined"`
	// Same is whether both mean the same; null where either is not known.
	Same *bool `json:"same"`
	// Sections are those in which they differ, and Difference is a unified diff of what they mean.
	Sections   []string `json:"sections"`
	Difference string   `json:"difference"`
	// Policies are the HeadscalePolicies in the order in which they are joined.
	Policies []policyPart `json:"policies"`
	// Unread says what is not known, and why.
	Unread []string `json:"unread,omitempty"`
}

// policyPart is a HeadscalePolicy.
type policyPart struct {
	Name  string `json:"name"`
	Order int32  `json:"order"`
	// Joined is whether it is in the joined policy.
	Joined    bool         `json:"joined"`
	Ready     bool         `json:"ready"`
	Reason    string       `json:"reason"`
	Message   string       `json:"message"`
	AppliedAt *metav1.Time `json:"appliedAt,omitempty"`
}

// describePolicies says what HeadscalePolicies make, and in what that differs from what is in force;
// nil: that is not known.
func describePolicies(hs *v1beta1.Headscale, policies []v1beta1.HeadscalePolicy, inForce *headscale.Policy) *policyReport {
	report := &policyReport{Namespace: hs.Namespace, Name: hs.Name, Sections: []string{}, Policies: []policyPart{}}
	slices.SortFunc(policies, func(a, b v1beta1.HeadscalePolicy) int { return v1beta1.ComparePolicies(&a, &b) })
	joined := report.join(hs, policies)
	if inForce == nil {
		return report
	}
	report.InForce = &inForce.Text
	if !inForce.UpdatedAt.IsZero() {
		at := metav1.NewTime(inForce.UpdatedAt)
		report.SetAt = &at
	}
	if joined != nil {
		report.compare(joined)
	}
	return report
}

// join joins the HeadscalePolicies as the operator does; nil if they cannot be joined. A
// HeadscalePolicy that cannot be joined is left out. If it is in force, the operator sends nothing
// without it.
func (r *policyReport) join(hs *v1beta1.Headscale, policies []v1beta1.HeadscalePolicy) *policy.Document {
	var parts []policy.Part
	for i := range policies {
		if document, err := policy.Parse(policies[i].Text()); err == nil {
			parts = append(parts, policy.Part{Source: policy.SourceOf(policies[i].Name), Created: policies[i].CreationTimestamp.Time, Document: document})
		}
	}
	parts, _ = policy.Select(parts)
	held := len(parts) == 0
	for i := range policies {
		part := describePart(&policies[i])
		part.Joined = slices.ContainsFunc(parts, func(p policy.Part) bool { return p.Source == policy.SourceOf(part.Name) })
		held = held || !part.Joined && policies[i].Status.AppliedDigest != ""
		r.Policies = append(r.Policies, part)
	}
	if held {
		return nil
	}
	text, _ := policy.Join(policy.Header(hs.Namespace, hs.Name), parts)
	document, err := policy.Parse(text)
	if err != nil {
		return nil // what can be parsed can be joined
	}
	r.Joined = &text
	return document
}

// describePart returns the state of a HeadscalePolicy.
func describePart(object *v1beta1.HeadscalePolicy) policyPart {
	part := policyPart{Name: object.Name, Order: object.EffectiveOrder(), AppliedAt: object.Status.AppliedAt}
	ready := meta.FindStatusCondition(object.Status.Conditions, v1beta1.ConditionReady)
	if ready == nil || object.Status.ObservedGeneration < object.Generation {
		part.Message = "the operator has not observed it yet; " + whereOperator
		return part
	}
	part.Ready, part.Reason, part.Message = ready.Status == metav1.ConditionTrue, ready.Reason, oneLine(ready.Message)
	return part
}

// compare says in what the joined policy differs from what is in force.
func (r *policyReport) compare(joined *policy.Document) {
	inForce, err := policy.Parse(*r.InForce)
	if err != nil {
		inForce = nil // none, or one that cannot be compared
	}
	r.Sections = append(r.Sections, policy.Differing(inForce, joined)...)
	same := len(r.Sections) == 0
	r.Same = &same
	r.Difference = policy.Difference(inForce, joined, "in force", "HeadscalePolicies")
}

// inOrder reports whether what is in force is what the HeadscalePolicies say, if there are any.
func (r *policyReport) inOrder() bool {
	if r.InForce == nil || len(r.Unread) > 0 {
		return false
	}
	ready := !slices.ContainsFunc(r.Policies, func(part policyPart) bool { return !part.Ready })
	return len(r.Policies) == 0 || ready && r.Same != nil && *r.Same
}

// isNone reports whether a policy is none, which allows everything.
func isNone(text string) bool { return strings.TrimSpace(text) == "" }
